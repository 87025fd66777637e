"""Attacks. Each test is one attack, and its name says what the attack must not achieve."""
