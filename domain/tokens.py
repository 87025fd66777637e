"""Fingerprints of API tokens, which do not reveal the tokens, for the gateway and the registry."""

# How many characters of a token lists show, with "mat_": they reveal 36 of its 256 bits.
PREFIX_CHARACTERS = 10


def fingerprint_of(token_hash: bytes) -> int:
    """The first 64 bits of the SHA-256 of a token."""
    return int.from_bytes(token_hash[:8], "big")
