"""Admission of clients to brokers. Some brokers ask Mooring; others are configured in advance."""
