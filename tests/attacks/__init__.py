"""Attacks: each test is one, named for what it must not achieve."""
