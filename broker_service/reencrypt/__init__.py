"""Everything that is encrypted in the database, put under the ring's active key."""
