"""The brokers: a list, a new broker, and the pages of one broker."""
