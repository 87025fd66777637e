"""Tickets: the proof that a service acts for a person.

When the registry authenticates an API token, it signs a ticket with the person's role and fleets.
The gateway sends the ticket with each call for this person. It is valid for about a minute, and for
one gateway. All services can verify a ticket; only the registry can make one.
"""

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chassis.errors import Unauthenticated
from chassis.keyring import read_keys

LIFETIME_S = 60
# How much the clocks of two services may differ.
SKEW_S = 5
SIGNATURE_BYTES = 64
KEY_BYTES = 32
# This text precedes the ticket in the signed bytes. These keys sign nothing else with it.
PURPOSE = b"mooring ticket 1\0"
# The reason if a ticket is missing, or is not valid for this call.
TICKET_INVALID = "TICKET_INVALID"

PublicKeys: TypeAlias = Mapping[int, Ed25519PublicKey]

# The ticket of the current call, for the audit log.
ticket: ContextVar[bytes | None] = ContextVar("ticket", default=None)


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signed content of a ticket. Times are seconds since 1970."""

    key_id: int
    # The name of the gateway that may use it.
    audience: str
    actor: str
    actor_id: str
    role: Literal["viewer", "operator", "admin"]
    issued_at: int
    expires_at: int
    # The ids of the fleets to which the token is restricted; an empty tuple gives access to none.
    fleets: Literal["all"] | tuple[str, ...] = ()


class InvalidTicket(Unauthenticated):
    """The caller is a service, but has no valid ticket of a person."""

    reason = TICKET_INVALID


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The registry's ring. New tickets are signed with the active key."""

    active_id: int
    keys: Mapping[int, Ed25519PrivateKey] = field(repr=False)
    # The public halves of the keys, which verify tickets.
    public: PublicKeys = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Called by the constructor."""
        public = {key_id: key.public_key() for key_id, key in self.keys.items()}
        object.__setattr__(self, "public", public)

    @classmethod
    def read(cls, file: Path) -> "SigningKeys":
        """Reads a ring (`chassis/keyring.py`) of secrets of 32 bytes. Raises `SystemExit`."""
        active_id, secrets = read_keys(file, "ticket keys")
        if any(len(secret) != KEY_BYTES for secret in secrets.values()):
            raise SystemExit(f"{file}: a ticket key has {KEY_BYTES} bytes")
        keys = {
            key_id: Ed25519PrivateKey.from_private_bytes(secret)
            for key_id, secret in secrets.items()
        }
        return cls(active_id, keys)

    def signed(
        self,
        *,
        audience: str,
        actor: str,
        actor_id: str,
        role: str,
        fleets: tuple[str, ...] | None,
        now: float | None = None,
    ) -> bytes:
        """A ticket. `fleets` None means all fleets; `now` is in seconds since 1970."""
        issued_at = int(time.time() if now is None else now)
        contents = msgspec.convert(
            {
                "key_id": self.active_id,
                "audience": audience,
                "actor": actor,
                "actor_id": actor_id,
                "role": role,
                "issued_at": issued_at,
                "expires_at": issued_at + LIFETIME_S,
                "fleets": "all" if fleets is None else fleets,
            },
            Ticket,
        )
        payload = msgspec.msgpack.encode(contents)
        return self.keys[self.active_id].sign(PURPOSE + payload) + payload

    def public_ring(self, others: PublicKeys | None = None) -> str:
        """The file of the public halves, and of `others`, in the format of `read_public`."""
        keys = [
            {"id": key_id, "public": b64encode(key.public_bytes_raw()).decode()}
            for key_id, key in {**(others or {}), **self.public}.items()
        ]
        return json.dumps({"keys": keys}, indent=1) + "\n"


def read_public(file: Path) -> PublicKeys:
    """Reads `{"keys": [{"id": 1, "public": "<base64>"}]}`. Raises `SystemExit`."""
    try:
        return {
            int(key["id"]): Ed25519PublicKey.from_public_bytes(
                b64decode(key["public"], validate=True)
            )
            for key in json.loads(file.read_text())["keys"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{file}: not a ring of public ticket keys ({error})") from None


def opened(shown: bytes, keys: PublicKeys) -> Ticket:
    """The content of a ticket, even if it has expired, for any gateway. Raises `InvalidTicket`."""
    signature, payload = shown[:SIGNATURE_BYTES], shown[SIGNATURE_BYTES:]
    try:
        found = msgspec.msgpack.decode(payload, type=Ticket)
        keys[found.key_id].verify(signature, PURPOSE + payload)
    except (msgspec.DecodeError, KeyError, InvalidSignature, UnicodeDecodeError):
        raise InvalidTicket("this ticket was not signed by the registry") from None
    return found


def checked(shown: bytes, keys: PublicKeys, *, audience: str, now: float | None = None) -> Ticket:
    """The content of a ticket that is valid now for `audience`. Raises `InvalidTicket`."""
    found = opened(shown, keys)
    moment = time.time() if now is None else now
    if not found.issued_at - SKEW_S <= moment < found.expires_at + SKEW_S:
        raise InvalidTicket("this ticket is not valid now")
    if found.audience != audience:
        raise InvalidTicket("this ticket is for another gateway")
    if not found.actor:
        raise InvalidTicket("this ticket names no token")
    return found
