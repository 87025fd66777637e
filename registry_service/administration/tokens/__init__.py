"""API tokens, which identify people and scripts and have their roles."""
