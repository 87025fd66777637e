"""Makes nearly valid inputs: parts of valid ones are exchanged, repeated or moved."""

import random
from collections.abc import Sequence

# Bytes that mean something to some parser or broker.
PIECES = (
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"%00", b"%", b"+", b"#", b"*", b"."),
    *(b"/", b"//", b"$", b"${username}", b"$share/g/", b'"', b"\\u0000", b"\\ud800", b"null"),
    *(b"[", b"{", b"}", b"1e999", b"-1", b"9" * 400, b"&", b"=", b"a" * 70_000, b"\r\n", b"true"),
)


def changed(some: bytes, chance: random.Random, pieces: Sequence[bytes] = PIECES) -> bytes:
    """`some` with parts exchanged, removed, repeated or moved."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randint(0, len(some))
        end = min(len(some), start + chance.choice((0, 1, 2, 8, 40)))
        put = chance.choice(
            (chance.choice(pieces), chance.randbytes(3), some[start:end] * 2, some[end : end + 9])
        )
        some = some[:start] + put + some[end:]
    return some
