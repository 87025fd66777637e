"""How many devices use which brokers: by assignment, by last answers, and by their reports."""
