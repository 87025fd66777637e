"""The regions, pools and other brokers that refer to a broker, and moving them to another."""
