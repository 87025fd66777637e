"""How one of our services proves itself to another, and for whom it speaks."""

import hmac
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote, unquote

import grpc

from chassis.config import ServiceConfig
from chassis.errors import Forbidden, Unauthenticated

AUTHORIZATION = "authorization"
ACTOR = "mooring-actor"
ACTOR_ID = "mooring-actor-id"
ROLE = "mooring-role"
FLEETS = "mooring-fleets"
REQUEST_ID = "mooring-request-id"

# The reason for which a service that cannot prove itself is refused.
UNTRUSTED_SERVICE = "UNTRUSTED_SERVICE"


class Access(IntEnum):
    """What a method asks of its caller. Each role may do what those before it may."""

    OPEN = 0  # health and reflection
    SERVICE = 1  # any of our services
    VIEWER = 2  # a service, for a person who may read
    OPERATOR = 3  # a service, for a person who may change things
    ADMIN = 4  # a service, for a person who may say who may


@dataclass(frozen=True, slots=True)
class WithinFleets:
    """An access that actors have too who are restricted to fleets: the method keeps them there.

    To them, what is outside is what does not exist. What states a bare `Access` refuses them.
    """

    access: Access


# What a method or a route states.
Policy: TypeAlias = Access | WithinFleets


# The role of the actor of the call that is being served.
role: ContextVar[Access] = ContextVar("role", default=Access.OPEN)


def access_of(policy: Policy) -> Access:
    """What it asks of everybody."""
    return policy.access if isinstance(policy, WithinFleets) else policy


@dataclass(frozen=True, slots=True)
class Actor:
    """For whom a service calls: a person or script, as the gateway authenticated them."""

    name: str
    role: Access
    # Of the token that was shown: names are not unique.
    id: str = ""
    # The ids of the fleets that the token is restricted to; None where it is not.
    fleets: frozenset[str] | None = None

    def require(self, policy: Policy) -> None:
        """Raises `Forbidden` where the role is not enough, or it is not for restricted tokens."""
        access = access_of(policy)
        if self.role < access:
            raise Forbidden(f"this needs the role {access.name.lower()}")
        if self.fleets is not None and not isinstance(policy, WithinFleets):
            raise Forbidden("this is not for a token that is restricted to fleets")


def read_secret(file: Path) -> str:
    """The secret that services on one machine share."""
    secret = file.read_text().strip()
    if len(secret) < 32:
        raise SystemExit(f"{file}: a service secret has at least 32 characters")
    return secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """One service's side of the trust: what it shows, and what it asks to see."""

    secret: str | None
    client: grpc.ChannelCredentials | None
    server: grpc.ServerCredentials | None

    @classmethod
    def of(cls, config: ServiceConfig) -> "Credentials":
        """Reads the files that the configuration names."""
        secret = read_secret(config.service_secret_file) if config.service_secret_file else None
        if not (config.tls_cert_file and config.tls_key_file and config.tls_ca_file):
            return cls(secret, None, None)
        certificate = config.tls_cert_file.read_bytes()
        key = config.tls_key_file.read_bytes()
        ca = config.tls_ca_file.read_bytes()
        return cls(
            secret,
            grpc.ssl_channel_credentials(ca, key, certificate),
            grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True),
        )

    def metadata(self, actor: Actor | None, request_id: str) -> tuple[tuple[str, str], ...]:
        """What goes with a call."""
        pairs = [(REQUEST_ID, request_id)]
        if self.secret is not None:
            pairs.append((AUTHORIZATION, f"Bearer {self.secret}"))
        if actor is not None:
            # Names are anybody's, metadata is ASCII.
            pairs += [
                (ACTOR, quote(actor.name)),
                (ACTOR_ID, actor.id),
                (ROLE, actor.role.name.lower()),
            ]
            if actor.fleets is not None:
                pairs.append((FLEETS, ",".join(sorted(actor.fleets))))
        return tuple(pairs)

    def identify(self, metadata: Mapping[str, str | bytes], access: Access) -> Actor | None:
        """For whom the caller speaks; None where nobody is asked for. Raises `Unauthenticated`.

        Under mutual TLS the handshake has already proved that the caller is one of ours; where a
        secret is configured too, it is asked for as well.
        """
        if access is Access.OPEN:
            return None
        if self.secret is not None:
            shown = str(metadata.get(AUTHORIZATION, "")).removeprefix("Bearer ")
            if not hmac.compare_digest(shown.encode(), self.secret.encode()):
                raise Unauthenticated(
                    "this is for Mooring's own services", reason=UNTRUSTED_SERVICE
                )
        if access is Access.SERVICE:
            return None
        role = str(metadata.get(ROLE, "")).upper()
        fleets = metadata.get(FLEETS)
        actor = Actor(
            unquote(str(metadata.get(ACTOR, ""))),
            Access.__members__.get(role, Access.OPEN),
            str(metadata.get(ACTOR_ID, "")),
            # Empty is none of them, not all.
            None if fleets is None else frozenset(filter(None, str(fleets).split(","))),
        )
        if not actor.name:
            raise Unauthenticated("this is done for somebody: name the actor")
        return actor
