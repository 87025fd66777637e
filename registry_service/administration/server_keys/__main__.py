"""`python -m registry_service.administration.server_keys retire --key 1`.

Ends all passwords that were made with a server key. Use it for a key that has leaked and is no
longer the active one. It can be stopped and started again at any time, also while the service runs.
docs/credentials.md describes the effect on devices.
"""

import argparse
import asyncio
from functools import partial
from pathlib import Path
from typing import ClassVar

from chassis import log
from chassis.config import load
from chassis.database import engine_of, require_schema
from chassis.database_failures import retried
from registry_service.administration.server_keys.store import Ended, ServerKeyStore, Usage
from registry_service.config import RegistryDatabaseConfig
from registry_service.credentials import KeyRing
from registry_service.tables import SCHEMA_REVISION


class KeysConfig(RegistryDatabaseConfig):
    """Each field is set by the environment variable of its name in capitals, as for the service."""

    process: ClassVar[str] = "registry_service.administration.server_keys"

    server_keys_file: Path


async def retired(config: KeysConfig, key_id: int) -> int:
    """Prints the result; returns the exit status. Raises `SystemExit`, `Unavailable`."""
    ring = KeyRing.read(config.server_keys_file)
    if key_id == ring.active_id:
        raise SystemExit(
            f"{config.server_keys_file}: key {key_id} is the active one: make another one active"
            " and restart all registry services first"
        )
    engine = engine_of(config.database_url, pool_size=1)
    try:
        await require_schema(engine, SCHEMA_REVISION, role=config.database_role)
        store = ServerKeyStore(engine)
        done, after = Ended(), 0
        while True:
            chunk = await retried(partial(store.end_passwords, key_id, after))
            done += chunk
            if chunk.last_id is None:
                break
            after = chunk.last_id
        left = await retried(partial(store.passwords_left, key_id))
        usage = (await retried(store.usage)).get(key_id, Usage())
    finally:
        await engine.dispose()
    _tell(f"{done.passwords} passwords that key {key_id} has made were ended")
    if done.previous_passwords:
        _tell(f"{done.previous_passwords} previous passwords are not accepted any more")
    proved = usage.devices + usage.disabled_devices
    if proved and key_id in ring.keys:
        _tell(f"{proved} devices still need the key to prove their identity: leave it in the ring")
    elif proved:
        _tell(
            f"{proved} devices can prove their identity only with the key, which is not in the ring"
        )
    if left:
        _tell(
            f"{left} passwords were made with it since: it is still the active key of a registry "
            f"service"
        )
    return 1 if left else 0


def _tell(news: str) -> None:
    print(news)  # noqa: T201


def _key_id(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m registry_service.administration.server_keys")
    commands = parser.add_subparsers(required=True, metavar="retire")
    retire = commands.add_parser(
        "retire", help="ends all passwords that were made with a server key"
    )
    retire.add_argument("--key", type=int, required=True, metavar="ID", help="its id in the ring")
    return int(parser.parse_args(arguments).key)


if __name__ == "__main__":
    key_id = _key_id()
    config = load(KeysConfig)
    log.configure("keys", config.log_level)
    log.actor.set("registry_service.administration.server_keys")
    raise SystemExit(asyncio.run(retired(config, key_id)))
