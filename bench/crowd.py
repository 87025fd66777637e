"""A database with a million devices, which several rows share."""

import hashlib
from uuid import UUID

from bench.programs import HERE
from bench.stage import Database, Stage

DEVICES = 1_000_000


def database(stage: Stage) -> Database:
    """It, made once in a run."""
    return stage.once(_made)


def uuid(number: int) -> str:
    """That of the device `number`, from 1 to `DEVICES`; sql/million.sql makes them so."""
    return str(UUID(hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()))


def _made(stage: Stage) -> Database:
    made = stage.make_database("crowd")
    made.execute((HERE / "sql" / "million.sql").read_text(), DEVICES)
    made.execute("UPDATE provisioning_keys SET devices_provisioned = %s", DEVICES)
    # As a table is that has had time; else PostgreSQL would do so while it is measured.
    made.execute("VACUUM (ANALYZE) devices")
    made.checkpoint()
    return made
