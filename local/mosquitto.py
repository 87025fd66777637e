"""A Mosquitto for this machine, which Mooring manages.

It listens on 127.0.0.1 without TLS. The file of its dynamic security plugin holds its clients: at
first only Mooring's login. With that login the worker adds the devices.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from chassis.errors import InvalidInput
from local import files
from local.privileges import as_owner_of, give_away
from local.processes import Program
from local.revival import tell
from registry_service.admission.reconciler import first_fill
from registry_service.password_hashes import read_password_hash
from registry_service.passwords import Password, is_password

MOSQUITTO = "mosquitto"
# The username of Mooring's login.
USERNAME = "mooring-control"
PLUGIN = "mosquitto_dynamic_security.so"
INSTALL = "apt install mosquitto mosquitto-clients"
# Folders of administrators' programs, which are not in every user's PATH.
ADMINISTRATION = "/usr/local/sbin:/usr/sbin:/sbin"
INHERITED = ("PATH", "LD_LIBRARY_PATH", "TZ")


@dataclass(frozen=True)
class Installed:
    """The paths of the broker and its plugin."""

    program: Path
    plugin: Path


def installed() -> Installed | None:
    """The Mosquitto of this machine; None if the broker or the plugin is missing, as before version
    2.
    """
    program = shutil.which(MOSQUITTO, path=f"{os.environ.get('PATH', os.defpath)}:{ADMINISTRATION}")
    return None if program is None else installed_as(Path(program))


def installed_as(program: Path) -> Installed | None:
    """`program` with the plugin that was installed beside it; None if there is none."""
    tree = program.resolve().parent.parent
    for pattern in (f"lib*/{PLUGIN}", f"lib*/*/{PLUGIN}"):
        for plugin in sorted(tree.glob(pattern)):
            return Installed(program, plugin)
    return None


@dataclass(frozen=True)
class Login:
    """Mooring's login at the broker."""

    username: str
    password: str = field(repr=False)


class _Client(msgspec.Struct):
    username: str
    password: str = ""
    salt: str = ""
    iterations: int = 0
    encoded_password: str = ""
    disabled: bool = False


class _File(msgspec.Struct):
    clients: list[_Client]


def admits(contents: bytes, login: Login) -> bool:
    """Whether a broker that starts with this file accepts `login`.

    It does not if the file is incomplete: Mosquitto before 2.0.16 writes its file in place, so if
    it is killed meanwhile, it has no clients at the next start.
    """
    try:
        clients = msgspec.json.decode(contents, type=_File).clients
        ours = next(one for one in clients if one.username == login.username and not one.disabled)
        # Version 2.0 and `first_fill` write a hash in these parts; version 2.1 writes it as one
        # text.
        parts = f"$7${ours.iterations}${ours.salt}${ours.password}"
        kept = read_password_hash(ours.encoded_password or parts, None, None)
    except (msgspec.MsgspecError, UnicodeError, InvalidInput, StopIteration):
        return False
    return is_password(Password(kept.algorithm, kept.hash), login.password)


class Mosquitto(Program):
    """Runs on `folder`, which holds its configuration, its plugin's file and its persistent
    sessions.

    Root does not run it as root, but as the folder's owner or `nobody`.
    """

    def __init__(
        self,
        found: Installed,
        folder: Path,
        port: int,
        login: Login,
        log: Path,
        lock: int,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """`lock` is as in `Program`. Only the variables in `INHERITED` are taken from
        `environment`.
        """
        self._folder = folder
        self._configuration = folder / "mosquitto.conf"
        self._clients = folder / "dynamic-security.json"
        self._text = (
            "# Written by every `make run`.\n"
            f"listener {port} 127.0.0.1\n"
            "allow_anonymous false\n"
            f"plugin {found.plugin}\n"
            f"plugin_opt_config_file {self._clients}\n"
            "persistence true\n"
            f"persistence_location {folder}/\n"
            "log_dest stderr\n"
            "log_timestamp_format %Y-%m-%dT%H:%M:%S\n"
        )
        self._login = login
        # At its last start it had only Mooring's login: the worker has yet to add the devices.
        self.has_only_the_login = False
        inherited = {name: environment[name] for name in INHERITED if name in environment}
        command = [str(found.program), "-c", str(self._configuration)]
        super().__init__(MOSQUITTO, command, inherited, log, lock, {"MQTT_PORT": port})

    def prepare(self) -> Sequence[str]:
        """Writes its configuration, and its plugin's file unless that accepts Mooring's login."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        files.write(self._configuration, self._text)
        is_there = self._clients.exists()
        self.has_only_the_login = not (is_there and admits(self._clients.read_bytes(), self._login))
        if is_there and self.has_only_the_login:
            # The file may contain clients that people have added.
            kept = self._clients.with_name(f"{self._clients.name}.1")
            self._clients.replace(kept)
            tell(
                f"{self._clients} refused Mooring's login: the file is made anew, and the old "
                f"one is kept as {kept.name}"
            )
        if self.has_only_the_login:
            self._fill()
        give_away(self._folder)
        return as_owner_of(self._folder)

    def _fill(self) -> None:
        text = first_fill.first_fill(
            [], control_username=self._login.username, control_password=self._login.password
        )
        first_fill.write(self._clients, text, replaces=True)
