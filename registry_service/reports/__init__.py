"""What devices say about the brokers that they were told: whether they reach them."""
