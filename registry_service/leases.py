"""What only one process may do at a time: it holds a row with an expiry and a term.

A row and not a session's lock: a connection that breaks unseen lets nobody in too early, and a
process that hangs keeps nobody out for longer than the lease lasts.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.database import writing
from registry_service.errors import LeaseLost
from registry_service.tables import leases


class Lease:
    """The right to do what `name` says."""

    def __init__(self, engine: AsyncEngine, name: str, lease_s: float = 15.0) -> None:
        """`lease_s` is how long nobody else takes over after the last sign of life."""
        self._engine = engine
        self._name = name
        self._expiry = sa.func.clock_timestamp() + timedelta(seconds=lease_s)

    async def take(self, holder: str) -> int | None:
        """The term that begins; None while somebody else's lasts. `holder` is for people."""
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
        """Lets the next one begin at once."""
        give = sa.update(leases).values(expires_at=sa.func.clock_timestamp())
        async with writing(self._engine) as connection:
            await connection.execute(give.where(leases.c.name == self._name, leases.c.term == term))

    @contextlib.asynccontextmanager
    async def turn(self, term: int) -> AsyncIterator[AsyncConnection]:
        """A transaction in which nobody else can have a turn; it renews the lease.

        Nobody can take the lease before it ends, not even where it takes longer than the lease.
        Raises `LeaseLost` where another term has begun.
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
