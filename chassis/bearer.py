"""`Authorization: Bearer …` (RFC 6750, section 2.1)."""

from collections.abc import Iterable

from chassis.errors import Unauthenticated

# A device makes its own API key, so any text is accepted that a header can hold without ambiguity.
# The length is limited, because a secret that fills a whole batch would make the other items of the
# batch fail.
MAX_SECRET_BYTES = 512
SCHEME = b"bearer "
VISIBLE = bytes(range(0x21, 0x7F))


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The secret of a request. Raises `Unauthenticated` unless there is exactly one."""
    shown = [value for name, value in headers if name == b"authorization"]
    if not shown:
        raise Unauthenticated("an Authorization header is needed")
    if len(shown) > 1:
        raise Unauthenticated("there is more than one Authorization header")
    value = shown[0].strip()
    # A regular expression for the same check takes seven times as long.
    secret = value[len(SCHEME) :].lstrip(b" ")
    if (
        value[: len(SCHEME)].lower() != SCHEME
        or not 0 < len(secret) <= MAX_SECRET_BYTES
        or secret.translate(None, VISIBLE)
    ):
        raise Unauthenticated("the Authorization header must be: Bearer, a space, the secret")
    return secret.decode("ascii")
