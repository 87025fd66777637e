"""Tickets: those that the registry did not sign or that make no sense are refused."""

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chassis.tickets import PURPOSE, InvalidTicket, SigningKeys, checked, opened
from chassis.trust import Access
from tests.fuzz.given import chosen

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RING = SigningKeys(1, {1: KEY})
NOW = 1_800_000_000
GOOD = RING.signed(
    audience="g", actor="a", actor_id="1", role="viewer", fleets=("demo", "f"), now=NOW
)
# The first byte says whether the rest is sent as it is, or is signed again.
SEEDS = (
    *(b"\0" + GOOD, b"\1" + GOOD[64:], b"\0", b"\1", b"\1\xc1", b"\1\x81\xa6key_id\x01"),
    b"\1" + RING.signed(audience="g", actor="a", actor_id="1", role="admin", fleets=None)[64:],
)
WORDS = (
    *(b"\xa6key_id", b"\xa8audience", b"\xa5actor", b"\xa4role", b"\xa6fleets", b"\xa3all"),
    *(b"\xa5admin", b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xc0"),
    *(b"\xdf\x7f\xff\xff\xff", b"\x91" * 1_100, b"\xd4\xff\x00", b"\xca\x7f\xc0\x00\x00"),
)


def attempt(data: bytes) -> None:
    is_signed, payload = chosen(data, (False, True))
    shown = KEY.sign(PURPOSE + payload) + payload if is_signed else payload
    try:
        found = checked(shown, RING.public, audience="g", now=NOW)
    except InvalidTicket:
        return
    assert is_signed or payload[64:] == GOOD[64:]
    assert found == opened(shown, RING.public)
    assert found.actor
    assert found.audience == "g"
    assert Access[found.role.upper()]
    assert found.fleets == "all" or all(isinstance(fleet, str) for fleet in found.fleets)
    msgspec.msgpack.encode(found)
