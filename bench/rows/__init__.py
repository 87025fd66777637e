"""The rows of the table. Each is a module with what it measures and its goals."""
