"""How many devices use which brokers: by assignment, and by their last answers."""
