"""The revisions of brokers, and restoring one."""
