"""Checks that the key of the last seal is in the ring. If the sealer continued with another key,
the loss of the key would not be noticed.
"""

from pathlib import Path

from chassis.database import engine_of
from registry_service.audit.sealing.store import SealStore
from registry_service.credentials import KeyRing


async def lost_key(store: SealStore, file: Path, ring: KeyRing) -> str | None:
    """Why the keys of `file` may not be used to seal; None if the last seal's key is in it.

    Raises `Unavailable`.
    """
    last = await store.last_seal()
    if last is None or last.key_id in ring.keys:
        return None
    return (
        f"{file}: the last seal was made with key {last.key_id}, which is not in it: restore the "
        f"backup of the file"
    )


async def lost_key_at(database_url: str, file: Path) -> str | None:
    """`lost_key` for a process without a store. Raises `SystemExit` if `file` is not a ring."""
    engine = engine_of(database_url, pool_size=1)
    try:
        return await lost_key(SealStore(engine), file, KeyRing.read(file))
    finally:
        await engine.dispose()
