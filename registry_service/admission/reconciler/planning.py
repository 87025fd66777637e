"""Decides the commands that bring a Mosquitto's dynamic security plugin in step. If only a part of
a plan is carried out, the next plan completes it. If too many clients would be removed, or there
are too many, the plan contains the other changes, and says what it leaves undone.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from chassis.errors import MooringError
from registry_service.admission.reconciler.dynamic_security import (
    LIMITS,
    MARK,
    ROLE_PREFIX,
    Acl,
    Actual,
    Client,
    Command,
    Wanted,
    acl_documents,
    acls_of,
    held_documents,
    limits,
    role_of,
    roles_of,
)
from registry_service.errors import TooManyClients, TooManyRemovals
from registry_service.password_hashes import PasswordHash

# At each command the plugin writes its whole file: with a thousand clients that takes 4 to 8 ms, in
# which the broker does nothing else.
MAX_CLIENTS = 1_000
# How many clients, or which share of them, may be removed at once without a known reason.
MAX_REMOVALS = 10
MAX_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """Commands in order, and the usernames they are about. `taken` are wanted, but clients with
    these names exist that are not Mooring's. `impossible` are wanted, but only hashes of their
    passwords are known. `refusals` say what was left undone.
    """

    commands: tuple[Command, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    created: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()
    refusals: tuple[MooringError, ...] = ()


def plan(wanted: Iterable[Wanted], actual: Actual, *, confirmed: Collection[str] = ()) -> Plan:
    """The commands in order; removals come first, because they end access. `confirmed` are the
    usernames of clients that were removed on purpose, and so do not count as unexpected removals.
    """
    by_name = {one.username: one for one in wanted}
    ours = {name: client for name, client in actual.clients.items() if client.is_ours}
    possible = {name: one for name, one in by_name.items() if _is_possible(one, ours.get(name))}
    refusals: list[MooringError] = []

    removed = {name for name in ours if name not in possible}
    unexpected = removed.difference(confirmed)
    if _is_suspicious(len(unexpected), len(ours)):
        refusals.append(_too_many_removals(len(unexpected), len(ours)))
        removed -= unexpected
    created = [name for name in sorted(possible) if name not in actual.clients]
    if len(by_name) > MAX_CLIENTS:
        refusals.append(too_many_clients(len(by_name)))
        created = []
    kept = sorted(possible.keys() & ours.keys())

    roles = {role_of(name): acls_of(possible[name].grants) for name in (*kept, *created)}
    stay = ours.keys() - removed
    if stay or created:
        roles[LIMITS] = limits()
    # The clients that this plan does not change.
    spared = {role_of(name) for name in stay.difference(kept)}
    others = actual.clients.keys() - removed - set(kept)
    held = actual.group_roles.union(
        held.role for name in others for held in actual.clients[name].roles
    )
    changes = {name: list(_changes(possible[name], ours[name], actual)) for name in kept}
    commands = [
        *(Command("deleteClient", name, {"username": name}) for name in sorted(removed)),
        *(_role_commands(LIMITS, roles, actual)),
        *(command for name in kept for command in changes[name]),
        *(command for name in created for command in _creation(possible[name], actual)),
        *_tidying(actual, roles.keys() | spared, held),
    ]
    return Plan(
        tuple(commands),
        removed=tuple(sorted(removed)),
        changed=tuple(name for name in kept if changes[name]),
        created=tuple(created),
        taken=tuple(sorted(possible.keys() & actual.clients.keys() - ours.keys())),
        impossible=tuple(sorted(by_name.keys() - possible.keys())),
        refusals=tuple(refusals),
    )


def _is_possible(one: Wanted, client: Client | None) -> bool:
    """Whether the broker can hold the client. If only a hash of the password is known, the password
    cannot be set at a broker that does not hold it already.
    """
    if not isinstance(one.password, PasswordHash):
        return True
    return client is not None and client.description == one.description


def _is_suspicious(removals: int, clients: int) -> bool:
    """Whether so many removals suggest an empty or incomplete reading of the database."""
    return removals > MAX_REMOVALS and removals > MAX_SHARE * clients


def _too_many_removals(removals: int, clients: int) -> TooManyRemovals:
    return TooManyRemovals(
        f"{removals} of {clients} clients would be removed at once, and no operator asked for that:"
        " none of them is",
        usage={"removals": removals, "clients": clients},
    )


def too_many_clients(wanted: int) -> TooManyClients:
    """The error for too many clients. The plugin writes its whole file for each command."""
    return TooManyClients(
        f"{wanted} clients are more than the {MAX_CLIENTS} that Mosquitto's dynamic security"
        " plugin can hold in step: no more are created. Let Mosquitto ask over HTTP"
        " (mosquitto-go-auth), or let devices show certificates, with use_identity_as_username and"
        " one ACL pattern; or use another broker",
        usage={"wanted": wanted, "most": MAX_CLIENTS},
    )


def _role_commands(
    name: str, roles: Mapping[str, frozenset[Acl]], actual: Actual
) -> Iterator[Command]:
    if name not in roles or actual.roles.get(name) == roles[name]:
        return
    way = "modifyRole" if name in actual.roles else "createRole"
    yield Command(way, name, {"rolename": name, "acls": acl_documents(roles[name])})


def _changes(one: Wanted, client: Client, actual: Actual) -> Iterator[Command]:
    """The commands that change a client. `modifyClient` ends the client's sessions; changing a role
    does not.

    Ending the sessions makes the client's new rights effective. Messages that it may no longer
    receive are not delivered in either case.
    """
    name = role_of(one.username)
    role = list(_role_commands(name, {name: acls_of(one.grants)}, actual))
    changed: dict[str, object] = {}
    if client.name != MARK:
        changed["textname"] = MARK
    if client.description != one.description:
        changed |= {"textdescription": one.description, "password": _password(one)}
    if client.client_id:
        changed["clientid"] = ""
    if client.roles != roles_of(one.username):
        changed["roles"] = held_documents(roles_of(one.username))
    if client.groups:
        changed["groups"] = []
    yield from role
    if role or changed:
        yield Command("modifyClient", one.username, {"username": one.username, **changed})
    if client.is_disabled:
        yield Command("enableClient", one.username, {"username": one.username})


def _creation(one: Wanted, actual: Actual) -> Iterator[Command]:
    """The commands that create a client. A separate command adds the roles. `createClient` accepts
    roles too, but then (2.0.11 to 2.1.2) the role does not list the client, and deleting the role
    leaves a client that points to freed memory.
    """
    name = role_of(one.username)
    yield from _role_commands(name, {name: acls_of(one.grants)}, actual)
    client = {
        "username": one.username,
        "password": _password(one),
        "textname": MARK,
        "textdescription": one.description,
    }
    yield Command("createClient", one.username, client)
    roles = held_documents(roles_of(one.username))
    yield Command("modifyClient", one.username, {"username": one.username, "roles": roles})


def _tidying(actual: Actual, needed: Collection[str], held: Collection[str]) -> Iterator[Command]:
    """Removes Mooring's roles that have no client. A role that a foreign client holds is emptied
    instead.
    """
    for name in sorted(actual.roles):
        if not name.startswith(ROLE_PREFIX) or name in needed:
            continue
        if name not in held:
            yield Command("deleteRole", name, {"rolename": name})
        elif actual.roles[name]:
            yield Command("modifyRole", name, {"rolename": name, "acls": []})


def _password(one: Wanted) -> str:
    if isinstance(one.password, PasswordHash):
        raise TypeError("only a hash of the password is known")
    return one.password()
