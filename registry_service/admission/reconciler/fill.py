"""`python -m registry_service.admission.reconciler.fill`: makes the file with which a Mosquitto
starts.

It holds the broker's devices, and the login with which Mooring manages the broker. The login's
password is in CONTROL_PASSWORD, or in the file that CONTROL_PASSWORD_FILE names. It is no argument,
because every user of the machine can see a command line.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr, model_validator

from chassis.config import load
from chassis.database import engine_of, require_schema
from chassis.errors import MooringError
from registry_service.admission.reconciler.first_fill import can_hold, first_fill, write
from registry_service.admission.reconciler.planning import MAX_CLIENTS, too_many_clients
from registry_service.admission.reconciler.store import EnforcementStore
from registry_service.admission.reconciler.wanted import wanted_of
from registry_service.config import RegistryDatabaseConfig
from registry_service.credentials import KeyRing
from registry_service.tables import SCHEMA_REVISION

# How many of the left-out devices the output names.
NAMED = 5


class FillConfig(RegistryDatabaseConfig):
    """Each field is set by the environment variable of its name in capitals; most are also
    variables of the worker.
    """

    process: ClassVar[str] = "registry_service.admission.reconciler.fill"

    server_keys_file: Path
    control_password: SecretStr = SecretStr("")
    control_password_file: Path | None = None

    @model_validator(mode="after")
    def _has_one_password(self) -> "FillConfig":
        if bool(self.control_password.get_secret_value()) == bool(self.control_password_file):
            raise ValueError("CONTROL_PASSWORD_FILE or CONTROL_PASSWORD is needed, and not both")
        return self

    def password(self) -> str:
        """The password, without the line break that editors add at the end. Raises `SystemExit`."""
        if self.control_password_file is None:
            return self.control_password.get_secret_value()
        try:
            password = self.control_password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SystemExit(f"{self.control_password_file} cannot be read: {error}") from None
        if not password:
            raise SystemExit(f"{self.control_password_file} is empty")
        return password


@dataclass(frozen=True, slots=True)
class Filled:
    """The file's text, the number of its devices, and the devices that are left out."""

    text: str = field(repr=False)
    held: int
    left_out: Sequence[str]


async def filled(config: FillConfig, broker_id: int, control_username: str) -> Filled:
    """Reads the database. Raises `MooringError`, `SystemExit`."""
    ring, password = KeyRing.read(config.server_keys_file), config.password()
    engine = engine_of(config.database_url, pool_size=1)
    try:
        await require_schema(engine, SCHEMA_REVISION, role=config.database_role)
        rows = await EnforcementStore(engine).wanted(broker_id, MAX_CLIENTS, ())
    finally:
        await engine.dispose()
    if len(rows) > MAX_CLIENTS:
        raise too_many_clients(len(rows))
    wanted = wanted_of(rows, ring)
    left_out = [one.username for one in wanted if not can_hold(one)]
    text = first_fill(wanted, control_username=control_username, control_password=password)
    return Filled(text, len(wanted) - len(left_out), left_out)


def print_result(found: Filled, broker_id: int) -> None:
    """Prints to standard error, because standard output may be the file."""
    news = [f"broker {broker_id}: {found.held} devices are in the file"]
    if found.left_out:
        news.append(
            f"left out: {len(found.left_out)}, whose passwords Mosquitto could not check:"
            f" {', '.join(found.left_out[:NAMED])}"
        )
    print("\n".join(news), file=sys.stderr)  # noqa: T201


def main(arguments: Sequence[str]) -> None:
    """Raises `SystemExit` if the file cannot be made, or exists and must not be replaced."""
    parser = argparse.ArgumentParser(
        prog="python -m registry_service.admission.reconciler.fill", description=__doc__
    )
    parser.add_argument("--broker", type=int, required=True, metavar="ID")
    parser.add_argument("--control-username", required=True, metavar="NAME")
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="write to this file instead of standard output"
    )
    parser.add_argument(
        "--owner", metavar="USER", help="with --to: the user that Mosquitto runs as"
    )
    parser.add_argument(
        "--replace", action="store_true", help="with --to: overwrite an existing file"
    )
    asked = parser.parse_args(arguments)
    if asked.to is None and (asked.owner or asked.replace):
        parser.error("--owner and --replace are of use with --to only")
    if not asked.control_username:
        parser.error("--control-username is empty")
    try:
        found = asyncio.run(filled(load(FillConfig), asked.broker, asked.control_username))
    except MooringError as error:
        raise SystemExit(error.message) from None
    if asked.to is None:
        print(found.text)  # noqa: T201
    else:
        try:
            write(asked.to, found.text, owner=asked.owner, replaces=asked.replace)
        except (OSError, LookupError) as error:
            raise SystemExit(f"{asked.to} cannot be written: {error}") from None
    print_result(found, asked.broker)


if __name__ == "__main__":
    main(sys.argv[1:])
