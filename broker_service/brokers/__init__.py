"""The brokers' settings and certificates, as operators manage them."""
