"""The wanted and the actual state of a Mosquitto's dynamic security plugin, and its commands.

https://github.com/eclipse-mosquitto/mosquitto/blob/v2.0.11/plugins/dynamic-security/README.md

Each client has its own role, because Mosquitto 2.0 has no patterns in roles (2.1 has). Each client
also has the role `LIMITS`, which the plugin checks after the client's own role and which denies the
rest. So neither the plugin's default access nor a group grants more. `publishClientReceive` is
granted for the same topics as subscribing, and the plugin checks it for each message. So a client
receives only granted messages, even if it subscribed before its role was narrowed, or took over
another client's session.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from registry_service.password_hashes import PasswordHash

# The `textname` of Mooring's clients. Mooring manages every client with this name.
MARK = "mooring"
# Roles with this prefix are Mooring's.
ROLE_PREFIX = "mooring:"
CLIENT_ROLE_PREFIX = f"{ROLE_PREFIX}client:"
LIMITS = f"{ROLE_PREFIX}limits"
OWN_PRIORITY, LIMITS_PRIORITY = 1, 0

SEND, RECEIVE = "publishClientSend", "publishClientReceive"
SUBSCRIBE, UNSUBSCRIBE = "subscribePattern", "unsubscribePattern"
SHARED = "$share/+/"
# In MQTT a wildcard in the first level does not match these topics (4.7.2). In patterns of
# Mosquitto 2.0 it does.
HIDDEN = tuple(f"{form}{topics}" for form in ("", SHARED) for topics in ("$SYS/#", "$CONTROL/#"))


class Grants(Protocol):
    """MQTT topic filters."""

    @property
    def publish(self) -> Sequence[str]:
        """Filters of topics to publish to."""
        ...

    @property
    def subscribe(self) -> Sequence[str]:
        """Filters of topics to subscribe to and receive."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """A device or a service account as the broker should hold it. `password` is called only when
    the password is needed. For an imported device only a hash may be known: the plugin reads hashes
    from its file, but does not accept them over the control topic. `fingerprint` changes with the
    password; the broker stores it in plain text.
    """

    username: str
    password: Callable[[], str] | PasswordHash = field(repr=False)
    fingerprint: str
    grants: Grants

    @property
    def description(self) -> str:
        """The client's `textdescription`."""
        return f"Kept by Mooring, changes are undone. Credentials: {self.fingerprint}"


class Acl(NamedTuple):
    """One line of a role. Higher priorities are asked first."""

    kind: str
    topic: str
    is_allowed: bool = True
    priority: int = 0


class Held(NamedTuple):
    """A role that a client holds."""

    role: str
    priority: int = -1


@dataclass(frozen=True, slots=True)
class Client:
    """A client in `listClients`: everything except the password."""

    username: str
    name: str = ""
    description: str = ""
    client_id: str = ""
    is_disabled: bool = False
    roles: frozenset[Held] = frozenset()
    groups: frozenset[str] = frozenset()

    @property
    def is_ours(self) -> bool:
        """True also if only the `textname` was removed."""
        return self.name == MARK or any(held.role == role_of(self.username) for held in self.roles)


@dataclass(frozen=True, slots=True)
class Actual:
    """What the plugin holds: clients and roles by their names."""

    clients: Mapping[str, Client]
    roles: Mapping[str, frozenset[Acl]]
    # The names of roles that groups hold.
    group_roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Command:
    """A command for the control topic. `arguments` may hold a password."""

    name: str
    # The client or role that the command is about, for logs.
    about: str
    arguments: Mapping[str, object] = field(repr=False)


def role_of(username: str) -> str:
    """The name of the role that only this client should have."""
    return f"{CLIENT_ROLE_PREFIX}{username}"


def username_of_role(name: str) -> str:
    """The client whose own role has this name; empty if it is not a client's own role."""
    if not name.startswith(CLIENT_ROLE_PREFIX):
        return ""
    return name.removeprefix(CLIENT_ROLE_PREFIX)


def roles_of(username: str) -> frozenset[Held]:
    """All roles that the client should have."""
    return frozenset({Held(role_of(username), OWN_PRIORITY), Held(LIMITS, LIMITS_PRIORITY)})


def limits() -> frozenset[Acl]:
    """Default denials for Mooring's clients; unsubscribing is allowed."""
    denied = {Acl(kind, topic, False) for kind in (SEND, RECEIVE) for topic in ("#", *HIDDEN[:2])}
    # In 2.0 "#" matches every subscription, in 2.1 those that do not begin with "$".
    denied |= {Acl(SUBSCRIBE, topic, False) for topic in ("#", f"{SHARED}#", *HIDDEN)}
    return frozenset({*denied, Acl(UNSUBSCRIBE, "#")})


def acls_of(grants: Grants) -> frozenset[Acl]:
    """The lines of the client's own role."""
    acls = {Acl(SEND, topics) for topics in grants.publish}
    for topics in grants.subscribe:
        acls |= {Acl(RECEIVE, topics), Acl(SUBSCRIBE, topics), Acl(SUBSCRIBE, SHARED + topics)}
        if topics.split("/")[0] in ("#", "+"):
            acls |= {Acl(SUBSCRIBE, hidden, False, 1) for hidden in HIDDEN}
    # Topics that are granted by name are not denied.
    named = {form + topics for form in ("", SHARED) for topics in grants.subscribe}
    return frozenset(acl for acl in acls if acl.is_allowed or acl.topic not in named)


def acl_documents(acls: frozenset[Acl]) -> list[dict[str, object]]:
    """The form that the plugin reads, in commands and in its file."""
    return [
        {"acltype": acl.kind, "topic": acl.topic, "allow": acl.is_allowed, "priority": acl.priority}
        for acl in sorted(acls)
    ]


def held_documents(roles: frozenset[Held]) -> list[dict[str, object]]:
    """The form that the plugin reads, in commands and in its file."""
    return [{"rolename": held.role, "priority": held.priority} for held in sorted(roles)]
