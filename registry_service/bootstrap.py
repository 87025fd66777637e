"""`python -m registry_service.bootstrap`: makes the first admin token, and prints it.

All other ways to make tokens need an admin token. This command needs access to the database as the
role mooring_registry instead, and the audit log records that.
"""

import argparse
import asyncio
from typing import ClassVar

from chassis import log
from chassis.config import load
from chassis.database import engine_of, require_schema
from chassis.errors import Conflict
from chassis.validation import check_text
from domain.tokens import PREFIX_CHARACTERS
from registry_service.administration.tokens.servicer import PREFIX
from registry_service.administration.tokens.store import TokenStore
from registry_service.config import RegistryDatabaseConfig
from registry_service.credentials import hash_of_secret, new_secret
from registry_service.tables import SCHEMA_REVISION

ACTOR = "registry_service.bootstrap"


class BootstrapConfig(RegistryDatabaseConfig):
    """Each field is set by the environment variable of its name in capitals, as for the service."""

    process: ClassVar[str] = "registry_service.bootstrap"


async def admin_token(database_url: str, name: str, *, is_another: bool = False) -> str:
    """Creates an admin token, and returns it. With `is_another`, an admin token may exist already.

    Raises `SystemExit` if one exists and must not, `InvalidInput`, `Unavailable`.
    """
    check_text("name", name, shortest=1, longest=255)
    engine = engine_of(database_url, pool_size=1)
    try:
        await require_schema(engine, SCHEMA_REVISION, role=BootstrapConfig.database_role)
        store = TokenStore(engine)
        secret = new_secret(PREFIX)
        log.actor.set(ACTOR)
        log.actor_id.set("")
        try:
            await store.create(
                name,
                "admin",
                token_hash=hash_of_secret(secret),
                prefix=secret[:PREFIX_CHARACTERS],
                expires_at=None,
                is_first=not is_another,
            )
        except Conflict as error:
            raise SystemExit(
                f"{error.message}: make others with it; if it is lost, use --another and revoke"
                " the lost one afterwards"
            ) from None
        return secret
    finally:
        await engine.dispose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m registry_service.bootstrap",
        description="makes the first admin's API token and prints it",
    )
    parser.add_argument("--name", default="first admin", help="the name of the token")
    parser.add_argument(
        "--another", action="store_true", help="make a token even if there is an admin token"
    )
    asked = parser.parse_args()
    config = load(BootstrapConfig)
    log.configure("bootstrap", config.log_level)
    made = admin_token(config.database_url, asked.name, is_another=asked.another)
    print(asyncio.run(made))  # noqa: T201
