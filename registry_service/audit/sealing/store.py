"""Seals and the lines they cover, in the database."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.database import reading
from chassis.leases import Lease
from registry_service.audit.sealing.chain import FIRST_COLUMNS, Fault, Finding, Line, Seal
from registry_service.tables import audit_log, audit_seals

LEASE = "audit_seals"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _micros(moment: Any) -> sa.ColumnElement[str]:
    """Whole microseconds since 1970 as text, also for infinite times."""
    return sa.cast(sa.func.trunc(sa.extract("epoch", moment) * 1_000_000), sa.Text)


def _moment(micros: str) -> datetime:
    return EPOCH + timedelta(microseconds=int(micros))


# The sealed columns of a line. These are all columns, in an order that never changes; new ones are
# added at the end. The id occurs twice: as the key, and as a part of the line.
_line = sa.select(
    audit_log.c.id,
    sa.cast(audit_log.c.id, sa.Text),
    _micros(audit_log.c.at),
    audit_log.c.actor,
    audit_log.c.actor_id,
    audit_log.c.action,
    audit_log.c.subject,
    audit_log.c.refusal,
    sa.cast(audit_log.c.count, sa.Text),
    sa.cast(audit_log.c.before, sa.Text),
    sa.cast(audit_log.c.after, sa.Text),
    sa.cast(audit_log.c.details, sa.Text),
    audit_log.c.request_id,
    audit_log.c.session_role,
    sa.func.encode(audit_log.c.ticket, sa.text("'hex'")),
)
# The columns that prove a line.
_proof = sa.select(
    audit_log.c.id,
    audit_log.c.at,
    audit_log.c.actor,
    audit_log.c.actor_id,
    audit_log.c.action,
    audit_log.c.subject,
    audit_log.c.refusal,
    audit_log.c.session_role,
    audit_log.c.ticket,
)
_seal = sa.select(
    audit_seals.c.id,
    sa.cast(audit_seals.c.ids, sa.Text).label("ids"),
    audit_seals.c.lines,
    audit_seals.c.digest,
    audit_seals.c.closed_id,
    _micros(audit_seals.c.closed_at).label("closed_at"),
    audit_seals.c.previous_mac,
    audit_seals.c.key_id,
    audit_seals.c.mac,
    _micros(audit_seals.c.sealed_at).label("sealed_at"),
)
_last = _seal.order_by(audit_seals.c.id.desc()).limit(1)


def _is_sealed(*among: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether a seal covers the line, of the seals for which the conditions `among` hold."""
    ranges = sa.func.unnest(audit_seals.c.ids).column_valued("ranges", joins_implicitly=True)
    nothing = sa.cast("{}", INT8MULTIRANGE)
    covered = sa.select(sa.func.coalesce(sa.func.range_agg(ranges), nothing))
    covered = covered.select_from(audit_seals).where(*among)
    return audit_log.c.id.op("<@", is_comparison=True)(covered.scalar_subquery())


def _sealed_part(row: sa.Row[Any]) -> Line:
    """The sealed columns of a line. A line without a role is older than the later columns, and was
    sealed without them.
    """
    values: Line = tuple(row[1:])
    return values if row.session_role is not None else values[:FIRST_COLUMNS]


async def _last_seal(connection: AsyncConnection) -> Seal | None:
    row = (await connection.execute(_last)).one_or_none()
    return Seal(**row._asdict()) if row else None


class Turn:
    """A transaction of the process that holds the lease."""

    def __init__(self, connection: AsyncConnection, now: str) -> None:
        """`now` is the database's time at the beginning of the transaction, in microseconds."""
        self._connection = connection
        self.now = now

    async def last_seal(self) -> Seal | None:
        """The last seal; None before the first."""
        return await _last_seal(self._connection)

    async def unsealed(self, last: Seal | None, limit: int) -> dict[int, Line]:
        """The next lines that no seal covers, in the order of their ids."""
        query = _line.order_by(audit_log.c.id).limit(limit)
        if last is not None:
            query = query.where(
                audit_log.c.id > last.closed_id,
                audit_log.c.at >= _moment(last.closed_at),
                ~_is_sealed(sa.func.upper(audit_seals.c.ids) > last.closed_id),
            )
        rows = (await self._connection.execute(query)).all()
        return {row[0]: _sealed_part(row) for row in rows}

    async def closing(
        self, last: Seal | None, up_to: int | None, lookback_s: float
    ) -> tuple[int, str]:
        """An id and a time: no honest line with a smaller id or an earlier time can appear later.

        Call it when all visible lines are covered, or, if `up_to` is given, all with ids up to it.
        A line gets its id before its transaction commits, and no transaction lasts as long as
        `lookback_s`. So lines with smaller ids than a line of that age are all visible. The time
        advances only if no visible line was left out.
        """
        until = int(self.now) - int(lookback_s * 1_000_000)
        old = audit_log.c.at < _moment(str(until))
        highest = sa.select(sa.func.max(audit_log.c.id)).where(old)
        if up_to is not None:
            highest = highest.where(audit_log.c.id <= up_to)
        if last is not None:
            highest = highest.where(
                audit_log.c.id > last.closed_id, audit_log.c.at >= _moment(last.closed_at)
            )
        closed_id = await self._connection.scalar(highest)
        before_id, before_at = (last.closed_id, int(last.closed_at)) if last else (0, 0)
        closed_at = before_at if up_to is not None else max(before_at, until)
        return closed_id or before_id, str(closed_at)

    async def append(self, seal: Seal) -> None:
        """Appends a seal to the chain."""
        await self._connection.execute(
            sa.insert(audit_seals).values(
                id=seal.id,
                ids=sa.cast(sa.literal(seal.ids, sa.Text), INT8MULTIRANGE),
                lines=seal.lines,
                digest=seal.digest,
                closed_id=seal.closed_id,
                closed_at=_moment(seal.closed_at),
                previous_mac=seal.previous_mac,
                key_id=seal.key_id,
                mac=seal.mac,
                sealed_at=_moment(seal.sealed_at),
            )
        )


class SealStore:
    """The statements of the sealer, which connects as mooring_sealer."""

    def __init__(self, engine: AsyncEngine, lease_s: float = 15.0) -> None:
        """The lease ends `lease_s` seconds after it was renewed last."""
        self._engine = engine
        self.lease = Lease(engine, LEASE, lease_s)

    @contextlib.asynccontextmanager
    async def turn(self, term: int) -> AsyncIterator[Turn]:
        """A transaction in which no other process can seal; it renews the lease. Raises `LeaseLost`
        if another term has begun.
        """
        async with self.lease.turn(term) as connection:
            now = sa.select(_micros(sa.func.clock_timestamp()))
            yield Turn(connection, (await connection.execute(now)).scalar_one())

    async def last_seal(self) -> Seal | None:
        """The last seal; None before the first."""
        async with reading(self._engine) as connection:
            return await _last_seal(connection)


class Reader:
    """All seals and lines as of one moment."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Do not construct it; use `reader`."""
        self._connection = connection

    async def seals_after(self, seal_id: int, limit: int) -> Sequence[Seal]:
        """The next seals after `seal_id`, in the order of their ids."""
        query = _seal.where(audit_seals.c.id > seal_id).order_by(audit_seals.c.id).limit(limit)
        return [Seal(**row._asdict()) for row in await self._connection.execute(query)]

    async def newest_seals(self, limit: int) -> Sequence[Seal]:
        """The last seals, the newest first."""
        query = _seal.order_by(audit_seals.c.id.desc()).limit(limit)
        return [Seal(**row._asdict()) for row in await self._connection.execute(query)]

    async def inserted(self, first: int, last: Seal, named: int) -> list[int]:
        """The first few lines from the id `first` on that appeared too late for `last`."""
        is_late = sa.or_(
            audit_log.c.id <= last.closed_id,
            _micros(audit_log.c.at).cast(sa.Numeric) < int(last.closed_at),
        )
        is_sealed = _is_sealed(sa.func.upper(audit_seals.c.ids) > first)
        query = sa.select(audit_log.c.id).where(audit_log.c.id >= first, is_late, ~is_sealed)
        found = await self._connection.scalars(query.order_by(audit_log.c.id).limit(named))
        return list(found)

    async def lines(self, first: int, end: int, limit: int) -> Sequence[tuple[int, Line]]:
        """The lines with ids from `first` to before `end`, in the order of their ids."""
        query = _line.where(audit_log.c.id >= first, audit_log.c.id < end)
        rows = await self._connection.execute(query.order_by(audit_log.c.id).limit(limit))
        return [(row[0], _sealed_part(row)) for row in rows]

    async def proofs(self, after_id: int, limit: int) -> Sequence[sa.Row[Any]]:
        """The lines that name an actor, in the order of their ids.

        Lines before the first one with a `session_role` are left out.
        """
        first = sa.select(sa.func.min(audit_log.c.id)).where(audit_log.c.session_role.is_not(None))
        query = _proof.where(
            audit_log.c.id > after_id,
            audit_log.c.id >= first.scalar_subquery(),
            sa.or_(audit_log.c.actor != "", audit_log.c.actor_id != ""),
        )
        rows = await self._connection.execute(query.order_by(audit_log.c.id).limit(limit))
        return cast("Sequence[sa.Row[Any]]", rows.all())

    async def unsealed(
        self, last: Seal | None, patience_s: float, named: int
    ) -> tuple[int, list[Finding]]:
        """How many lines wait for the next seal, and the faults of lines without a seal: a line
        appeared too late for the seals up to `last`, or has waited for longer than `patience_s`. A
        finding names up to `named` lines.
        """
        is_late: sa.ColumnElement[bool] = sa.false()
        if last is not None:
            is_late = sa.or_(
                audit_log.c.id <= last.closed_id,
                _micros(audit_log.c.at).cast(sa.Numeric) < int(last.closed_at),
            )
        is_waiting_long = audit_log.c.at < sa.func.clock_timestamp() - timedelta(seconds=patience_s)
        query = sa.select(audit_log.c.id, is_late, is_waiting_long).where(~_is_sealed())
        late: list[int] = []
        overdue: list[int] = []
        waiting = 0
        stream = await self._connection.stream(query.order_by(audit_log.c.id))
        async for line_id, was_late, is_overdue in stream:
            waiting += not was_late
            found = late if was_late else overdue
            if (was_late or is_overdue) and len(found) < named:
                found.append(line_id)
        findings = []
        if late:
            findings.append(Finding(Fault.LINES_INSERTED, lines=late))
        if overdue:
            findings.append(Finding(Fault.NOT_SEALED, lines=overdue))
        return waiting, findings


@contextlib.asynccontextmanager
async def reader(engine: AsyncEngine) -> AsyncIterator[Reader]:
    """Reads without the usual time limits, because the log may be large."""
    async with engine.connect() as connection:
        await connection.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            await connection.execute(sa.text(f"SET LOCAL {setting} = 0"))
        yield Reader(connection)
