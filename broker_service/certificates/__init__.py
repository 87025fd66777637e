"""CA bundles and client certificates, each stored once for all brokers that use it."""
