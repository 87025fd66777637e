"""The revisions of pools, and restoring one."""
