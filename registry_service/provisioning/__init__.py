"""What devices ask: to be registered, and what to connect to today."""
