"""Databases with a million devices, which several rows share, and with ten million."""

import hashlib
from urllib.parse import quote, urlencode
from uuid import UUID

from bench.programs import HERE
from bench.stage import Database, Stage

FILL = HERE / "sql" / "million.sql"
DEVICES = 1_000_000
MANY_DEVICES = 10_000_000
ADDED_AT_ONCE = 10_000
# The percentage of a B-tree's pages that is full after insertions in random order (ln 2).
RANDOM_FILLFACTOR = 70


def database(stage: Stage) -> Database:
    """The shared database; it is made once in a run."""
    return stage.once(_made)


def uuid(number: int) -> str:
    """The uuid of the device `number`, from 1 to `DEVICES`, as sql/million.sql makes it."""
    return str(UUID(hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()))


def fill_quickly(made: Database, devices: int) -> None:
    """Inserts so many devices in a third of the time that it takes with all indexes.

    The index of uuids is built at the end, with pages as full as after single insertions.
    """
    # Foreign keys and triggers would find nothing wrong with these rows, so they are switched off.
    options = urlencode({"options": "-c session_replication_role=replica"}, quote_via=quote)
    superuser = Database(made.name, f"{made.superuser_url}?{options}", made.superuser_url)
    superuser.execute("ALTER TABLE devices DROP CONSTRAINT devices_uuid_key")
    superuser.execute(FILL.read_text(), 1, devices)
    superuser.execute(
        "CREATE UNIQUE INDEX devices_uuid_key ON devices (uuid)"
        f" WITH (fillfactor = {RANDOM_FILLFACTOR})"
    )
    superuser.execute("ALTER INDEX devices_uuid_key RESET (fillfactor)")
    superuser.execute(
        "ALTER TABLE devices ADD CONSTRAINT devices_uuid_key UNIQUE USING INDEX devices_uuid_key"
    )
    _finish(made, devices)


def add(made: Database, present: int, devices: int) -> None:
    """Adds devices to `present` ones, as registrations do but faster: in some thousand at once."""
    for first in range(present + 1, present + devices + 1, ADDED_AT_ONCE):
        last = min(first + ADDED_AT_ONCE - 1, present + devices)
        made.execute(FILL.read_text(), first, last)
    made.execute("UPDATE provisioning_keys SET devices_provisioned = %s", present + devices)


def _made(stage: Stage) -> Database:
    made = stage.make_database("crowd")
    made.execute(FILL.read_text(), 1, DEVICES)
    _finish(made, DEVICES)
    return made


def _finish(made: Database, devices: int) -> None:
    made.execute("UPDATE provisioning_keys SET devices_provisioned = %s", devices)
    # The state that autovacuum would reach; otherwise it would run during the measurement.
    made.execute("VACUUM (ANALYZE) devices")
    made.checkpoint()
