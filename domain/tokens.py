"""Names of API tokens that do not reveal the tokens, for the gateway and the registry."""

# The beginning of a token, with "mat_": 36 of its 256 bits, as in lists of tokens.
PREFIX_CHARACTERS = 10


def fingerprint_of(token_hash: bytes) -> int:
    """The beginning of the SHA-256 of a token, in 64 bits."""
    return int.from_bytes(token_hash[:8], "big")
