"""Indexes that are built after the migrations, without locking their tables.

CREATE INDEX would block registrations while it reads all devices, so these are built concurrently,
which no transaction can do. Every run of the migrations builds those that are missing, also after a
run that was killed. Without them everything works, but slowly.
"""

import time

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

# The order of most is that of a list (registry_service/administration/devices/orders.py).
INDEXES = {
    "devices_name": 'devices ((lower(device_name)) COLLATE "C", id)',
    "devices_type": "devices (device_type, id)",
    "devices_region": "devices (region, id) WHERE region <> ''",
    "devices_told_broker": "devices ((coalesce(told_broker_ids[1], 0)), id)",
    "devices_registered": "devices (provisioned_at, id)",
    "devices_inactive": "devices (id) WHERE NOT is_active",
    "devices_pool": "devices (pool_id, id) WHERE pool_id IS NOT NULL",
}

BUILT = text("""
SELECT relname FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid
WHERE relnamespace = 'public'::regnamespace AND indisvalid
""")
# One process builds at a time. The others try again from time to time: a process that waited for
# the lock inside of PostgreSQL would have a snapshot, and the one that builds would wait for it.
LOCK = text("LOCK TABLE turns IN SHARE UPDATE EXCLUSIVE MODE NOWAIT")
PAUSE_S, PATIENCE_S = 0.2, 3_600.0


def build_missing(engine: Engine) -> None:
    """Builds the indexes that do not exist, or whose building was interrupted.

    Raises `SystemExit` if another process builds them for more than an hour.
    """
    with (
        engine.connect() as locked,
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        if not _missing(connection):
            return
        deadline = time.monotonic() + PATIENCE_S
        while not _is_locked(locked):
            if time.monotonic() > deadline:
                raise SystemExit("another process has been building indexes for an hour")
            time.sleep(PAUSE_S)
        for name in _missing(connection):
            connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS public.{name}"))
            connection.execute(text(f"CREATE INDEX CONCURRENTLY {name} ON public.{INDEXES[name]}"))


def _is_locked(connection: Connection) -> bool:
    """Whether the connection has the lock now, until it is closed."""
    try:
        connection.execute(LOCK)
    except DBAPIError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        connection.rollback()
        return False
    return True


def _missing(connection: Connection) -> list[str]:
    built = set(connection.execute(BUILT).scalars())
    return [name for name in INDEXES if name not in built]
