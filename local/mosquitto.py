"""A Mosquitto for this machine alone, which is told who may connect.

It listens on 127.0.0.1 without TLS, and knows whom the file of its dynamic security plugin names:
at first a login of ours. With that, the worker tells it the devices.
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
# Of our own login.
USERNAME = "mooring-control"
PLUGIN = "mosquitto_dynamic_security.so"
INSTALL = "apt install mosquitto mosquitto-clients"
# Where administrators' programs are, which is not on everybody's PATH.
ADMINISTRATION = "/usr/local/sbin:/usr/sbin:/sbin"
INHERITED = ("PATH", "LD_LIBRARY_PATH", "TZ")


@dataclass(frozen=True)
class Installed:
    """The broker and its plugin, where they are."""

    program: Path
    plugin: Path


def installed() -> Installed | None:
    """What this machine has; None where either is missing, as before Mosquitto 2."""
    program = shutil.which(MOSQUITTO, path=f"{os.environ.get('PATH', os.defpath)}:{ADMINISTRATION}")
    return None if program is None else installed_as(Path(program))


def installed_as(program: Path) -> Installed | None:
    """`program` with the plugin that was installed beside it; None where there is none."""
    tree = program.resolve().parent.parent
    for pattern in (f"lib*/{PLUGIN}", f"lib*/*/{PLUGIN}"):
        for plugin in sorted(tree.glob(pattern)):
            return Installed(program, plugin)
    return None


@dataclass(frozen=True)
class Login:
    """That of ours."""

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
    """Whether a broker that starts with this file lets `login` in.

    It does not where the file was cut off: before 2.0.16 Mosquitto writes its file in place, so
    that one which is killed meanwhile knows nobody when it starts again.
    """
    try:
        clients = msgspec.json.decode(contents, type=_File).clients
        ours = next(one for one in clients if one.username == login.username and not one.disabled)
        # The parts are how 2.0 writes a hash, and how `first_fill` does; 2.1 writes it as one text.
        parts = f"$7${ours.iterations}${ours.salt}${ours.password}"
        kept = read_password_hash(ours.encoded_password or parts, None, None)
    except (msgspec.MsgspecError, UnicodeError, InvalidInput, StopIteration):
        return False
    return is_password(Password(kept.algorithm, kept.hash), login.password)


class Mosquitto(Program):
    """On `folder`, which holds its configuration, its plugin's file and what is kept for devices.

    Root does not run it as root, but as the folder's owner or nobody.
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
        """`lock` as for any program; of `environment` it gets only what is in `INHERITED`."""
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
        # As of its last start: those who drive it have not told it anybody yet.
        self.knows_nobody = False
        inherited = {name: environment[name] for name in INHERITED if name in environment}
        command = [str(found.program), "-c", str(self._configuration)]
        super().__init__(MOSQUITTO, command, inherited, log, lock, {"MQTT_PORT": port})

    def prepare(self) -> Sequence[str]:
        """Writes its configuration, and its plugin's file where that lets us in no more."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        files.write(self._configuration, self._text)
        is_there = self._clients.exists()
        self.knows_nobody = not (is_there and admits(self._clients.read_bytes(), self._login))
        if is_there and self.knows_nobody:
            # It may name clients that people have made.
            kept = self._clients.with_name(f"{self._clients.name}.1")
            self._clients.replace(kept)
            tell(
                f"{self._clients} refused Mooring's login: the file is made anew, and the old "
                f"one is kept as {kept.name}"
            )
        if self.knows_nobody:
            self._fill()
        give_away(self._folder)
        return as_owner_of(self._folder)

    def _fill(self) -> None:
        text = first_fill.first_fill(
            [], control_username=self._login.username, control_password=self._login.password
        )
        first_fill.write(self._clients, text, replaces=True)
