"""Replacing a certificate: both are served during an overlap, then the new one alone."""
