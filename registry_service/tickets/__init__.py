"""The keys that tickets are signed with, as a command."""
