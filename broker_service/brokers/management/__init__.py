"""What our own services need to drive brokers: the one way out for the brokers' passwords."""
