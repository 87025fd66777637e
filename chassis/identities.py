"""Identifies the service that calls.

With mutual TLS, a name in the caller's certificate identifies it: a URI such as a SPIFFE id, or a
DNS name. On loopback a secret identifies it; the called service stores the hash of the secret. Any
other caller is refused, even with a certificate of the same CA.
"""

import json
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import grpc
import structlog

from chassis.errors import Unauthenticated
from chassis.reloaded import Reloaded

log = structlog.get_logger(__name__)

AUTHORIZATION = "authorization"
# The reason if the caller is not one of the services, or may not call the method.
UNTRUSTED_SERVICE = "UNTRUSTED_SERVICE"
# How often the use of the shared secret is logged.
SHARED_LOGGED_EVERY_S = 60.0

Metadata: TypeAlias = Mapping[str, str | bytes]
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Identity(StrEnum):
    """The callers that methods name in their policies."""

    GATEWAY = "gateway"
    REGISTRY = "registry"
    ENFORCEMENT = "enforcement"
    # The operator's own services, which ask for a device's broker.
    RESOLVER = "resolver"
    # A caller with the secret that all services shared in earlier releases. This release still
    # accepts such a caller, for the methods that name it.
    SHARED = "shared"


PROVABLE: tuple[Identity, ...] = tuple(
    identity for identity in Identity if identity is not Identity.SHARED
)

# The names in certificates, unless CALLER_IDENTITIES sets other names.
DEFAULT_NAMES: Mapping[Identity, tuple[str, ...]] = {
    identity: (f"spiffe://mooring/{identity}", f"{identity}.mooring.internal")
    for identity in PROVABLE
}


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated service."""

    identity: Identity
    # The name in its certificate; on loopback, its identity. Tickets are bound to it.
    name: str


# The service that made the current call.
caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


class Callers(Protocol):
    """Identifies callers."""

    def caller_of(self, metadata: Metadata, context: Context, /) -> Caller:
        """The caller. Raises `Unauthenticated` if it is not one of the services."""


def hash_of(secret: str) -> bytes:
    """The stored hash of a caller's secret. The secret is random and has 256 bits."""
    return sha256(secret.encode()).digest()


def read_secret(file: Path) -> str:
    """The secret that this service sends. Raises `SystemExit`."""
    secret = file.read_text(errors="replace").strip()
    if len(secret) < 32:
        raise SystemExit(f"{file}: a service secret has at least 32 characters")
    return secret


def read_hashes(file: Path) -> Mapping[bytes, Identity]:
    """The identities by the hashes of their secrets.

    The file holds `{"gateway": ["<hex of its SHA-256>", …], …}`. A caller may have several secrets,
    so that one can be replaced. Raises `SystemExit`.
    """
    try:
        found: dict[bytes, Identity] = {}
        for name, hashes in json.loads(file.read_text()).items():
            identity = Identity(name)
            for text in hashes:
                kept = bytes.fromhex(text)
                if len(kept) != 32:
                    raise ValueError("a hash has 64 hexadecimal digits")
                if found.setdefault(kept, identity) is not identity:
                    raise ValueError("two callers have the same secret")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SystemExit(f"{file}: not a file of callers' hashes ({error})") from None
    if Identity.SHARED in found.values():
        raise SystemExit(f"{file}: the shared secret is configured by SERVICE_SECRET_FILE")
    return found


@dataclass(slots=True)
class BySecret:
    """Identifies callers on loopback.

    A secret is looked up by its hash, and not compared in constant time. The time of a lookup
    reveals at most the beginning of a hash, and an attacker cannot choose secrets by their hashes.
    """

    hashes: Reloaded[Mapping[bytes, Identity]] | None
    shared: Reloaded[str] | None = None
    _logged_at: float = field(default=-SHARED_LOGGED_EVERY_S)
    # Callers by the header that they sent, so that a call costs one lookup. This cache is valid as
    # long as the file holds `_as_of`.
    _known: dict[str, Caller] = field(default_factory=dict, repr=False)
    _as_of: Mapping[bytes, Identity] | None = None

    def caller_of(self, metadata: Metadata, context: Context, /) -> Caller:
        """Raises `Unauthenticated`."""
        hashes = self.hashes.value if self.hashes is not None else None
        if hashes is not self._as_of:
            self._known.clear()
            self._as_of = hashes
        header = str(metadata.get(AUTHORIZATION, ""))
        if (known := self._known.get(header)) is not None:
            return known
        hashed = hash_of(header.removeprefix("Bearer "))
        if hashes is not None and (identity := hashes.get(hashed)) is not None:
            found = Caller(identity, identity)
            if header.startswith("Bearer "):  # so a secret has only one header in the cache
                self._known[header] = found
            return found
        if self.shared is not None and hashed == hash_of(self.shared.value):
            self._log_shared(context.peer())
            return Caller(Identity.SHARED, Identity.SHARED)
        raise Unauthenticated("this is for Mooring's own services", reason=UNTRUSTED_SERVICE)

    def _log_shared(self, peer: str) -> None:
        now = time.monotonic()
        if now - self._logged_at >= SHARED_LOGGED_EVERY_S:
            self._logged_at = now
            log.warning(
                "a caller uses the secret that services shared: give it its own secret",
                peer=peer,
            )


@dataclass(frozen=True, slots=True)
class ByCertificate:
    """Identifies callers with mutual TLS. gRPC has verified their certificates."""

    # DNS names are in lower case; URIs are unchanged.
    names: Mapping[str, Identity]

    def caller_of(self, _: Metadata, context: Context, /) -> Caller:
        """Raises `Unauthenticated`."""
        shown = context.auth_context() or {}
        names = {name.decode(errors="replace").lower() for name in shown.get("peer_dns", ())}
        names |= {name.decode(errors="replace") for name in shown.get("peer_uri", ())}
        known = {name: self.names[name] for name in names if name in self.names}
        # A certificate with the names of two services is refused as ambiguous.
        if len(set(known.values())) != 1:
            raise Unauthenticated(
                "this certificate is not of one of Mooring's services", reason=UNTRUSTED_SERVICE
            )
        name = min(known)
        return Caller(known[name], name)


def names_of(configured: Mapping[Identity, tuple[str, ...]]) -> dict[str, Identity]:
    """The identities by their names: the configured ones, or the default ones.

    Raises `ValueError` for a name of two identities.
    """
    found: dict[str, Identity] = {}
    for identity, names in {**DEFAULT_NAMES, **configured}.items():
        for name in names:
            key = name if "://" in name else name.lower()
            if found.setdefault(key, identity) is not identity:
                raise ValueError(f"{name} is named for {found[key]} and for {identity}")
    return found
