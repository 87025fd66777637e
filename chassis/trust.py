"""The authentication of services to one another, and the policies of methods.

A policy names the services that may call a method. A method for people also requires a ticket,
which the registry has signed (`chassis.tickets`).
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias

import grpc

from chassis.config import CalleeConfig, CallerConfig, ServiceConfig
from chassis.errors import Forbidden, Unauthenticated
from chassis.grpc_tls import ReloadedTls
from chassis.identities import (
    AUTHORIZATION,
    UNTRUSTED_SERVICE,
    ByCertificate,
    BySecret,
    Caller,
    Callers,
    Context,
    Identity,
    Metadata,
    names_of,
    read_hashes,
    read_secret,
)
from chassis.reloaded import Reloaded
from chassis.tickets import InvalidTicket, PublicKeys, checked

REQUEST_ID = "mooring-request-id"
TICKET = "mooring-ticket-bin"


class Access(IntEnum):
    """The role that a method or a route requires. Each role includes the ones before it."""

    OPEN = 0  # health and reflection
    VIEWER = 1  # may read
    OPERATOR = 2  # may change things
    ADMIN = 3  # may make tokens


@dataclass(frozen=True, slots=True)
class WithinFleets:
    """The policy of a method that tokens restricted to fleets may call too.

    The method must treat everything outside these fleets as if it did not exist. A policy that is
    only an `Access` refuses such tokens.
    """

    access: Access


@dataclass(frozen=True, slots=True, init=False)
class Services:
    """The services that may call a method without a ticket."""

    identities: frozenset[Identity]

    def __init__(self, *identities: Identity) -> None:
        """There must be at least one identity."""
        object.__setattr__(self, "identities", frozenset(identities))


# The role of the actor of the current call.
role: ContextVar[Access] = ContextVar("role", default=Access.OPEN)

# A policy for people.
PersonPolicy: TypeAlias = Access | WithinFleets
# The policy of a method.
Policy: TypeAlias = PersonPolicy | Services

# Only the gateway calls for people, because it receives their tokens.
FOR_PEOPLE = frozenset({Identity.GATEWAY})


def access_of(policy: PersonPolicy) -> Access:
    """The role that a policy requires."""
    return policy.access if isinstance(policy, WithinFleets) else policy


def callers_of(policy: Policy) -> frozenset[Identity]:
    """The services that may call a method with this policy."""
    return policy.identities if isinstance(policy, Services) else FOR_PEOPLE


@dataclass(frozen=True, slots=True)
class Actor:
    """A person or script, named by the ticket of a call."""

    name: str
    role: Access
    # The id of the token, because names are not unique.
    id: str = ""
    # The ids of the fleets to which the token is restricted; None if it is not restricted.
    fleets: frozenset[str] | None = None

    def require(self, policy: PersonPolicy) -> None:
        """Raises `Forbidden` if the role is too low, or `policy` is not for restricted tokens."""
        access = access_of(policy)
        if self.role < access:
            raise Forbidden(f"this needs the role {access.name.lower()}")
        if self.fleets is not None and not isinstance(policy, WithinFleets):
            raise Forbidden("this is not for a token that is restricted to fleets")


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials that a service sends to others, and how it authenticates its callers."""

    # The secret that the service sends on loopback.
    secret: Callable[[], str] | None = None
    # The service's certificate, with TLS; the same object until the files change.
    client: Callable[[], grpc.ChannelCredentials] | None = None
    server: grpc.ServerCredentials | None = None
    # Identifies callers; None refuses every caller.
    callers: Callers | None = None
    # Verifies tickets; None refuses every ticket.
    ticket_keys: Callable[[], PublicKeys] | None = None

    @classmethod
    def of(
        cls, config: ServiceConfig, ticket_keys: Callable[[], PublicKeys] | None = None
    ) -> "Credentials":
        """Reads the files that the configuration names; `ticket_keys` verify tickets."""
        if config.tls_cert_file and config.tls_key_file and config.tls_ca_file:
            tls = ReloadedTls(config.tls_cert_file, config.tls_key_file, config.tls_ca_file)
            return cls(
                client=tls.client,
                server=tls.server(),
                callers=ByCertificate(names_of(config.caller_identities))
                if isinstance(config, CalleeConfig)
                else None,
                ticket_keys=ticket_keys,
            )
        shared = config.service_secret_file
        own = config.caller_secret_file if isinstance(config, CallerConfig) else None
        return cls(
            secret=_shown(own or shared) if isinstance(config, CallerConfig) else None,
            callers=_by_secret(config.caller_hashes_file, shared)
            if isinstance(config, CalleeConfig)
            else None,
            ticket_keys=ticket_keys,
        )

    def metadata(
        self, ticket: bytes | None, request_id: str
    ) -> tuple[tuple[str, str | bytes], ...]:
        """The metadata of a call to another service."""
        pairs: list[tuple[str, str | bytes]] = [(REQUEST_ID, request_id)]
        if self.secret is not None:
            pairs.append((AUTHORIZATION, f"Bearer {self.secret()}"))
        if ticket is not None:
            pairs.append((TICKET, ticket))
        return tuple(pairs)

    def caller_of(self, metadata: Metadata, context: Context) -> Caller:
        """The calling service. Raises `Unauthenticated`."""
        if self.callers is None:
            raise Unauthenticated("this service takes no calls", reason=UNTRUSTED_SERVICE)
        return self.callers.caller_of(metadata, context)

    def actor_of(self, metadata: Metadata, caller: Caller) -> tuple[Actor, bytes]:
        """The person for whom `caller` calls, and the ticket. Raises `InvalidTicket`."""
        shown = metadata.get(TICKET)
        if not isinstance(shown, bytes) or self.ticket_keys is None:
            raise InvalidTicket("this call needs a ticket of a person")
        found = checked(shown, self.ticket_keys(), audience=caller.name)
        fleets = None if found.fleets == "all" else frozenset(found.fleets)
        return Actor(found.actor, Access[found.role.upper()], found.actor_id, fleets), shown


def require_caller(caller: Caller, allowed: frozenset[Identity]) -> None:
    """Raises `Unauthenticated` if `caller` is not one of the `allowed` services."""
    if caller.identity not in allowed:
        raise Unauthenticated(
            f"this is not allowed for the caller {caller.identity}", reason=UNTRUSTED_SERVICE
        )


def _shown(file: Path | None) -> Callable[[], str] | None:
    if file is None:
        return None
    reloaded = Reloaded(file, read_secret)
    return lambda: reloaded.value


def _by_secret(hashes: Path | None, shared: Path | None) -> BySecret:
    return BySecret(
        Reloaded(hashes, read_hashes) if hashes else None,
        Reloaded(shared, read_secret) if shared else None,
    )
