"""How many devices use which brokers, by what assigns them and by what they were told."""
