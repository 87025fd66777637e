"""`python -m broker_service.reencrypt`: encrypts all secrets again with the active key. After that,
other keys can be removed. It also binds passwords of earlier versions to their destinations; before
that, these passwords are not used. It can be stopped and started again at any time, also while the
service runs.
"""

import asyncio
from functools import partial

from broker_service.config import ReencryptConfig
from broker_service.encryption import EncryptionKeys
from broker_service.reencrypt.store import Chunk, ReencryptionStore
from broker_service.tables import SCHEMA_REVISION
from chassis import log
from chassis.config import load
from chassis.database import engine_of, require_schema
from chassis.database_failures import retried


async def reencrypted(config: ReencryptConfig) -> Chunk:
    """Encrypts all secrets again, and returns the totals. Raises `SystemExit`, `Unavailable`."""
    log.actor.set("broker_service.reencrypt")
    keys = EncryptionKeys.read(config.encryption_keys_file)
    engine = engine_of(config.database_url, pool_size=1)
    try:
        await require_schema(engine, SCHEMA_REVISION, role=config.database_role)
        store = ReencryptionStore(engine, keys)
        done = Chunk()
        for work in (store.passwords, store.private_keys):
            after: int | None = 0
            while after is not None:
                chunk = await retried(partial(work, after))
                done, after = done + chunk, chunk.last_id
        return done
    finally:
        await engine.dispose()


def show(done: Chunk, active_id: int) -> int:
    """Prints the totals; returns the exit status."""
    print(  # noqa: T201
        f"{done.passwords} passwords and {done.private_keys} private keys"
        f" were put under key {active_id}"
    )
    for where in done.unreadable:
        print(f"not changed, because it cannot be read: {where}")  # noqa: T201
    if done.unreadable:
        return 1
    print("no other key is needed any more")  # noqa: T201
    return 0


if __name__ == "__main__":
    config = load(ReencryptConfig)
    log.configure("reencrypt", config.log_level)
    active_id = EncryptionKeys.read(config.encryption_keys_file).active_id
    raise SystemExit(show(asyncio.run(reencrypted(config)), active_id))
