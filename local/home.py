"""MOORING_HOME: the files of a Mooring on one machine, apart from its database.

An existing secret is never made again, because the database holds values derived from it.
"""

import base64
import json
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from chassis.identities import PROVABLE, Identity, hash_of, read_secret
from chassis.tickets import PublicKeys, SigningKeys, read_public
from local.errors import CannotRun
from local.files import write
from local.locks import locked

# The roles of the services; `mooring` migrates.
SERVICE_ROLES = (
    "mooring_broker",
    "mooring_registry",
    "mooring_operator",
    "mqtt_reader",
    "mooring_sealer",
    "mooring_access",
)
ROLES = ("mooring", *SERVICE_ROLES)
# How long processes of a killed run may take to end; services finish their calls first.
REMAINS_PATIENCE_S = 20.0

T = TypeVar("T")


class Key(msgspec.Struct, frozen=True):
    """One key of the ring; its secret is base64 in the file."""

    id: int
    secret: Annotated[bytes, msgspec.Meta(min_length=32)]


class KeyRing(msgspec.Struct, frozen=True):
    """The keys, and the id of the one that is used for new values."""

    active: int
    keys: list[Key]


@dataclass(frozen=True)
class Trust:
    """The files with which services authenticate each other, and prove for whom they call."""

    secrets: Mapping[Identity, Path]
    hashes: Path
    ticket_keys: Path
    ticket_public_keys: Path
    # The one secret of all services, in a home of an earlier release.
    shared: Path | None


class Home:
    """The folder MOORING_HOME. Raises `CannotRun` for a corrupt file in it."""

    def __init__(self, path: Path) -> None:
        """Makes the folder if it is missing."""
        self.path = path.absolute()
        try:
            # The files in it are readable by their owner only, so an existing folder may keep its
            # mode.
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CannotRun(f"MOORING_HOME: {self.path}: {error.strerror}") from None

    @contextmanager
    def occupied(self) -> Iterator[int]:
        """Keeps other runs out. Yields a descriptor for the services to inherit.

        Raises `CannotRun` at once if another run is alive. Waits up to `REMAINS_PATIENCE_S` for the
        services of a killed run to end.
        """
        ours = locked(self.path / "lock", 0)
        if ours is None:
            raise CannotRun(f"MOORING_HOME: another `make run` is using {self.path}")
        try:
            services = locked(self.path / "services.lock", REMAINS_PATIENCE_S)
            if services is None:
                raise CannotRun(f"MOORING_HOME: services of a killed run still use {self.path}")
            try:
                yield services
            finally:
                os.close(services)
        finally:
            os.close(ours)

    def log(self, name: str) -> Path:
        """The log file of a child."""
        return self.path / "logs" / f"{name}.log"

    def trust(self) -> "Trust":
        """The secrets and keys of the services; makes those that are missing."""
        folder = self.path / "callers"
        folder.mkdir(mode=0o700, exist_ok=True)
        files: dict[Identity, Path] = {identity: folder / identity for identity in PROVABLE}
        for file in files.values():
            if not file.exists():
                write(file, secrets.token_urlsafe(32))
        shared = self.path / "service-secret"
        for file in (*files.values(), *([shared] if shared.exists() else ())):
            if len(file.read_text(errors="replace").strip()) < 32:
                raise CannotRun(f"{file} is corrupt: a service secret has at least 32 characters")
        # Hashes of secrets that were replaced are dropped.
        hashes = folder / "hashes.json"
        kept = {name: [hash_of(read_secret(file)).hex()] for name, file in files.items()}
        write(hashes, json.dumps(kept, indent=1))
        ticket_keys = self.path / "ticket-keys.json"
        if not ticket_keys.exists():
            _make_ring(ticket_keys, 1 + secrets.randbelow(2**31 - 1))
        _check_ring(ticket_keys)
        public = self.path / "ticket-public-keys.json"
        try:
            ring = SigningKeys.read(ticket_keys)
        except SystemExit as error:
            raise CannotRun(str(error)) from None
        # Lines of the audit log are verified with retired keys too.
        write(public, ring.public_ring(_public_keys(public)))
        return Trust(files, hashes, ticket_keys, public, shared if shared.exists() else None)

    def mosquitto_password(self) -> str:
        """The password of Mooring's login at the Mosquitto of this machine.

        Makes it if it is missing: both sides get it from here.
        """
        file = self.path / "mosquitto-password"
        if not file.exists():
            write(file, secrets.token_urlsafe(32))
        password = file.read_text(errors="replace").strip()
        if len(password) < 32:
            raise CannotRun(f"{file} is corrupt: this password has at least 32 characters")
        return password

    @property
    def mosquitto(self) -> Path:
        """The folder of the Mosquitto of this machine."""
        return self.path / "mosquitto"

    def server_keys(self) -> Path:
        """The file of the server-key ring. It is made in a new home only, not if it was lost:
        devices are registered with the lost keys, and could not authenticate with others.
        """
        file = self.path / "server-keys.json"
        if not file.exists():
            if (self.path / "role-passwords.json").exists():
                raise CannotRun(
                    f"{file} is gone: restore its backup: without it, no device can authenticate"
                )
            _make_ring(file, 1)
        _check_ring(file)
        return file

    def encryption_keys(self) -> Path:
        """The file of the ring with which brokers' secrets are encrypted.

        Makes it if it is missing, because homes of earlier versions have none. The id is random: if
        the ring was lost, the broker service notices that its data were encrypted with another key.
        """
        file = self.path / "encryption-keys.json"
        if not file.exists():
            _make_ring(file, 1 + secrets.randbelow(2**31 - 1))
        _check_ring(file)
        return file

    def audit_keys(self) -> Path:
        """The file of the ring with which the audit log is sealed.

        Makes it if it is missing, because homes of earlier versions have none. The id is random: if
        the ring was lost, the sealer notices that the last seal has another key, and refuses.
        """
        file = self.path / "audit-keys.json"
        if not file.exists():
            _make_ring(file, 1 + secrets.randbelow(2**31 - 1))
        _check_ring(file)
        return file

    def role_passwords(self) -> Mapping[str, str]:
        """The password of each of `ROLES`."""
        file = self.path / "role-passwords.json"
        kept = _decoded(file, dict[str, str]) if file.exists() else {}
        passwords = {role: secrets.token_urlsafe(24) for role in ROLES} | kept
        if passwords != kept:
            write(file, json.dumps(passwords, indent=1))
        return passwords

    @property
    def credentials_file(self) -> Path:
        """The file with what a person needs to use the services, for a shell to source."""
        return self.path / "credentials.env"

    def credentials(self) -> Mapping[str, str]:
        """The values that the last run wrote; empty before the first run."""
        if not self.credentials_file.exists():
            return {}
        try:
            words = shlex.split(self.credentials_file.read_text(), comments=True)
        except ValueError as error:
            raise CannotRun(f"{self.credentials_file} is corrupt: {error}") from None
        pairs = [word.partition("=") for word in words]
        if not all(name.isidentifier() and separator for name, separator, _ in pairs):
            raise CannotRun(f"{self.credentials_file} is corrupt: it has lines beside NAME=value")
        return {name: value for name, _, value in pairs}

    def write_credentials(self, credentials: Mapping[str, str]) -> None:
        """Replaces the values that the last run wrote."""
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in credentials.items()]
        write(self.credentials_file, "".join(["# Written by every `make run`.\n", *lines]))


def _make_ring(file: Path, key_id: int) -> None:
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    write(file, json.dumps({"active": key_id, "keys": [{"id": key_id, "secret": secret}]}))


def _check_ring(file: Path) -> None:
    ring = _decoded(file, KeyRing)
    if ring.active not in {key.id for key in ring.keys}:
        raise CannotRun(f"{file} is corrupt: it has no key {ring.active}, the active one")


def _public_keys(file: Path) -> PublicKeys:
    if not file.exists():
        return {}
    try:
        return read_public(file)
    except SystemExit as error:
        raise CannotRun(str(error)) from None


def _decoded(file: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except msgspec.DecodeError as error:
        raise CannotRun(f"{file} is corrupt: {error}") from None
