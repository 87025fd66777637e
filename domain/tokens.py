"""What the gateway and the registry call an API token by, without knowing it."""

# Of a token, "mat_" included: 36 of its 256 bits. As much as lists of tokens show.
PREFIX_CHARACTERS = 10


def fingerprint_of(token_hash: bytes) -> int:
    """The beginning of the SHA-256 of a token, in 64 bits."""
    return int.from_bytes(token_hash[:8], "big")
