"""The rows of the table, each a module: what it measures, and what is asked of it."""
