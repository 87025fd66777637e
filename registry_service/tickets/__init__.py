"""The command for the keys with which tickets are signed."""
