"""Which client a broker admits: answered when the broker asks, or configured at the broker."""
