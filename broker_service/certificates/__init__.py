"""CA bundles and client certificates, each kept once however many brokers use it."""
