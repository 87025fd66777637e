"""Reads what a Mosquitto's dynamic security plugin lists, a page at a time."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from registry_service.admission.reconciler.dynamic_security import (
    Acl,
    Actual,
    Client,
    Command,
    Held,
)

# Names of the lists in answers, by the command that lists them.
LISTS = {"listClients": "clients", "listRoles": "roles", "listGroups": "groups"}
PAGE = 500
MAX_LISTED = 100_000


class Moved(Exception):
    """The lists were changed between two pages and must be read again."""


class ListedRole(Struct):
    """A role in a client or a group."""

    rolename: str
    priority: int = -1


class ListedGroup(Struct):
    """A group in a list, and in a client."""

    groupname: str
    roles: tuple[ListedRole, ...] = ()

    @property
    def name(self) -> str:
        """A unique name."""
        return self.groupname


class ListedClient(Struct):
    """Empty and false fields are left out."""

    username: str
    textname: str = ""
    textdescription: str = ""
    clientid: str = ""
    disabled: bool = False
    roles: tuple[ListedRole, ...] = ()
    groups: tuple[ListedGroup, ...] = ()

    @property
    def name(self) -> str:
        """A unique name."""
        return self.username


class ListedAcl(Struct):
    """One line of a role."""

    acltype: str
    topic: str
    priority: int
    allow: bool


class Role(Struct):
    """A role in a list."""

    rolename: str
    acls: tuple[ListedAcl, ...] = ()

    @property
    def name(self) -> str:
        """A unique name."""
        return self.rolename


class Page(Struct):
    """The `data` of an answer: one of the three lists."""

    total: Annotated[int, Meta(ge=0, le=MAX_LISTED)] = msgspec.field(name="totalCount")
    clients: tuple[ListedClient, ...] = ()
    roles: tuple[Role, ...] = ()
    groups: tuple[ListedGroup, ...] = ()


class Single(Struct):
    """The `data` of an answer to `getClient`."""

    client: ListedClient


class Reading:
    """Collects the pages of all three lists: send the questions, take the answers, and repeat until
    there are no questions. Pages are from different moments. If another client creates one item and
    deletes another in between, an item may be missed: the next reading finds it.
    """

    def __init__(self) -> None:
        """Starts without pages."""
        self._clients: dict[str, ListedClient] = {}
        self._roles: dict[str, Role] = {}
        self._groups: dict[str, ListedGroup] = {}
        self._totals: dict[str, int] = {}

    def questions(self) -> list[Command]:
        """The commands for the next page of each list that has one."""
        return [
            Command(name, name, {"verbose": True, "count": PAGE, "offset": self._read(name)})
            for name in LISTS
            if self._read(name) < self._totals.get(name, 1)
        ]

    def take(self, name: str, data: object) -> None:
        """Takes the answer to the command `name`. Raises `Moved`, and `msgspec.ValidationError`."""
        page = msgspec.convert(data, Page)
        before = self._read(name)
        self._clients.update({listed.name: listed for listed in page.clients})
        self._roles.update({listed.name: listed for listed in page.roles})
        self._groups.update({listed.name: listed for listed in page.groups})
        listed = len(page.clients) + len(page.roles) + len(page.groups)
        expected = min(PAGE, page.total - before)
        if page.total != self._totals.setdefault(name, page.total) or listed != expected:
            raise Moved
        if self._read(name) != before + listed:
            raise Moved

    def actual(self) -> Actual:
        """The contents of the lists."""
        return Actual(
            {name: _client(listed) for name, listed in self._clients.items()},
            {name: _acls(role) for name, role in self._roles.items()},
            frozenset(role.rolename for group in self._groups.values() for role in group.roles),
        )

    def _read(self, name: str) -> int:
        return len(getattr(self, f"_{LISTS[name]}"))


def _client(listed: ListedClient) -> Client:
    return Client(
        listed.username,
        listed.textname,
        listed.textdescription,
        listed.clientid,
        listed.disabled,
        frozenset(Held(role.rolename, role.priority) for role in listed.roles),
        frozenset(group.groupname for group in listed.groups),
    )


def _acls(role: Role) -> frozenset[Acl]:
    return frozenset(Acl(acl.acltype, acl.topic, acl.allow, acl.priority) for acl in role.acls)


def read_client(data: object) -> Client:
    """The `data` of an answer to `getClient`. Raises `msgspec.ValidationError`."""
    return _client(msgspec.convert(data, Single).client)
