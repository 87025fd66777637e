"""The audit log, as it is read. Whoever changes something writes it; its seals are beside it."""
