"""Every revision of every broker, and the way back to one."""
