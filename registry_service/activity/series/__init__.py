"""Registrations and refusals a minute and an hour, in all and by fleet."""
