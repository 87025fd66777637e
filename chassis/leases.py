"""Leases for work that only one process may do at a time. A lease is a row with an expiry and a
term, and not a lock of a session. So if a connection breaks unnoticed, no other process starts too
early, and a process that hangs blocks others for no longer than the lease lasts.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.database import writing
from chassis.errors import LostRace

# Row security grants each role its own names.
leases = sa.table(
    "leases",
    sa.column("name", sa.Text),
    sa.column("holder", sa.Text),
    sa.column("term", sa.BigInteger),
    sa.column("expires_at", sa.DateTime(timezone=True)),
)


class LeaseLost(LostRace):
    """Another process has taken over the lease."""

    reason = "LEASE_LOST"


class Lease:
    """The right to do the work `name`."""

    def __init__(self, engine: AsyncEngine, name: str, lease_s: float = 15.0) -> None:
        """After the last renewal, no other process takes over for `lease_s`."""
        self._engine = engine
        self._name = name
        self._expiry = sa.func.clock_timestamp() + timedelta(seconds=lease_s)

    async def take(self, holder: str) -> int | None:
        """Takes the lease, and returns the number of the term that begins; None if another process
        holds the lease. `holder` names this process, for people.
        """
        new = insert(leases).values(name=self._name, holder=holder, expires_at=self._expiry)
        take = new.on_conflict_do_update(
            index_elements=[leases.c.name],
            set_={"holder": holder, "term": leases.c.term + 1, "expires_at": self._expiry},
            where=leases.c.expires_at < sa.func.clock_timestamp(),
        ).returning(leases.c.term)
        async with writing(self._engine) as connection:
            term: int | None = await connection.scalar(take)
            return term

    async def give_up(self, term: int) -> None:
        """Gives up the lease, so that another process can begin at once."""
        give = sa.update(leases).values(expires_at=sa.func.clock_timestamp())
        async with writing(self._engine) as connection:
            await connection.execute(give.where(leases.c.name == self._name, leases.c.term == term))

    @contextlib.asynccontextmanager
    async def turn(self, term: int) -> AsyncIterator[AsyncConnection]:
        """A transaction that excludes all other holders, and renews the lease. No other process can
        take the lease before the transaction ends, even if that takes longer than the lease. Raises
        `LeaseLost` if another term has begun.
        """
        renew = (
            sa.update(leases)
            .values(expires_at=self._expiry)
            .where(leases.c.name == self._name, leases.c.term == term)
            .returning(leases.c.term)
        )
        async with writing(self._engine) as connection:
            if await connection.scalar(renew) is None:
                raise LeaseLost(f"another process holds the lease {self._name}")
            yield connection
