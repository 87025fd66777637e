"""What operators configure: devices, fleets, keys, tokens, accounts and brokers' secrets."""
