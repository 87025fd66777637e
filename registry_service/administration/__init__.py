"""What operators configure: devices, fleets, keys, tokens, and what brokers know of them."""
