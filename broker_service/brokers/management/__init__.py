"""The managed brokers: the only call that returns passwords of brokers."""
