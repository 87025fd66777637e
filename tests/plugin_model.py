"""A model of Mosquitto's dynamic security plugin, on which plans are carried out.

`test_dynamic_security.py` shows that the model behaves like the real plugin.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from registry_service.admission.reconciler.dynamic_security import (
    Acl,
    Actual,
    Client,
    Command,
    Held,
)


@dataclass
class Plugin:
    """The state of the plugin, and the roles of which the plugin knows that a client has them."""

    clients: dict[str, Client] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    roles: dict[str, frozenset[Acl]] = field(default_factory=dict)
    # The roles of each group, by the group's name.
    groups: dict[str, frozenset[str]] = field(default_factory=dict)
    # Clients with the roles of their creation; these roles do not know of the client.
    unknown: set[tuple[str, str]] = field(default_factory=set)

    def copy(self) -> "Plugin":
        return Plugin(
            dict(self.clients),
            dict(self.passwords),
            dict(self.roles),
            dict(self.groups),
            set(self.unknown),
        )

    def actual(self) -> Actual:
        held = frozenset(role for roles in self.groups.values() for role in roles)
        return Actual(dict(self.clients), dict(self.roles), held)

    def run(self, commands: Iterable[Command]) -> list[str]:
        """Carries out commands; returns the errors, empty for no error."""
        return [self.do(command) for command in commands]

    def do(self, command: Command) -> str:
        given: dict[str, Any] = dict(command.arguments)
        if command.name.endswith("Role"):
            return self._role(command.name, given)
        username: str = given.pop("username")
        client = self.clients.get(username)
        match command.name, client:
            case "createClient", None:
                return self._create(username, given)
            case "createClient", _:
                return "Client already exists"
            case _, None:
                return "Client not found"
            case "deleteClient", _:
                del self.clients[username]
                self.passwords.pop(username, None)
                self._forget(username)
            case "enableClient", Client():
                self.clients[username] = replace(client, is_disabled=False)
            case "disableClient", Client():
                self.clients[username] = replace(client, is_disabled=True)
            case "modifyClient", Client():
                return self._modify(client, given)
            case _:
                return "Unknown command"
        return ""

    def _create(self, username: str, given: Mapping[str, Any]) -> str:
        held = _held(given)
        if any(one.role not in self.roles for one in held or ()):
            return "Role not found"
        self.clients[username] = Client(
            username, given.get("textname", ""), given.get("textdescription", "")
        )
        if "password" in given:
            self.passwords[username] = given["password"]
        if held:
            self.clients[username] = replace(self.clients[username], roles=held)
            self.unknown |= {(username, one.role) for one in held}
        return ""

    def _modify(self, client: Client, given: Mapping[str, Any]) -> str:
        fields = {"textname": "name", "textdescription": "description", "clientid": "client_id"}
        changes: dict[str, Any] = {
            ours: given[theirs] for theirs, ours in fields.items() if theirs in given
        }
        held = _held(given)
        if any(one.role not in self.roles for one in held or ()):
            return "Role not found"
        if held is not None:
            self._forget(client.username)
            changes["roles"] = held
        if "groups" in given:
            changes["groups"] = frozenset(one["groupname"] for one in given["groups"])
        if given.get("password"):
            self.passwords[client.username] = given["password"]
        self.clients[client.username] = replace(client, **changes)
        return ""

    def _role(self, name: str, given: Mapping[str, Any]) -> str:
        role = given["rolename"]
        if name == "createRole" and role in self.roles:
            return "Role already exists"
        if name != "createRole" and role not in self.roles:
            return "Role not found" if name == "deleteRole" else "Role does not exist"
        if name != "deleteRole":
            self.roles[role] = frozenset(
                Acl(one["acltype"], one["topic"], one["allow"], one["priority"])
                for one in given["acls"]
            )
            return ""
        assert not {one for one in self.unknown if one[1] == role}, "points into freed memory"
        del self.roles[role]
        for client in self.clients.values():
            left = frozenset(one for one in client.roles if one.role != role)
            self.clients[client.username] = replace(client, roles=left)
        self.groups = {group: roles - {role} for group, roles in self.groups.items()}
        return ""

    def _forget(self, username: str) -> None:
        self.unknown = {one for one in self.unknown if one[0] != username}


def _held(given: Mapping[str, Any]) -> frozenset[Held] | None:
    if "roles" not in given:
        return None
    return frozenset(Held(one["rolename"], one.get("priority", -1)) for one in given["roles"])
