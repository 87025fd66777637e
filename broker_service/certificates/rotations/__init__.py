"""Replacing a certificate: during an overlap devices get both, then the new one alone."""
