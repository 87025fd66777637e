"""Whether a thousand different provisioning keys slow down registrations."""

import hashlib
import secrets
from dataclasses import replace

from bench import growth, wrk
from bench.measures import Findings
from bench.programs import HERE
from bench.stage import Database, Stage

KEYS = 1_000


def measure(stage: Stage) -> Findings:
    """Measures the row. Each key is used equally often, in turn."""
    with stage.database("keys") as database, stage.services(database) as with_one:
        with_many = replace(with_one, provisioning_key=",".join(made(database)))
        turns = growth.compared(
            wrk.rate_of(with_many, growth.CONNECTIONS), wrk.rate_of(with_one, growth.CONNECTIONS)
        )
    return Findings((growth.figure(f"with {KEYS:,} provisioning keys", "with 1", turns),))


def made(database: Database) -> list[str]:
    """Makes so many keys in `database` and returns them."""
    keys = [f"mpk_{secrets.token_urlsafe(32)}" for _ in range(KEYS)]
    hashes = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    database.execute((HERE / "sql" / "keys.sql").read_text(), hashes)
    return keys
