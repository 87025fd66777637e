"""Runs jobs in the database: each chunk is one transaction."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import planned_anew, reading, writing
from chassis.errors import LostRace
from chassis.leases import Lease
from chassis.log import actor, actor_id
from chassis.tickets import ticket
from registry_service.bulk.jobs import statements
from registry_service.bulk.jobs.chunks import extent, reached_by
from registry_service.bulk.jobs.lifecycle import Action, State, Status, after
from registry_service.bulk.jobs.outcomes import MOVED, PENDING, tallied
from registry_service.bulk.jobs.store import parameters_of
from registry_service.tables import api_tokens, jobs

LEASE = "jobs"
# The roles that may run jobs, the same as in registry_service/bulk/jobs/servicer.py.
RUNNING_ROLES = ("operator", "admin")
# If a table was empty a minute ago, its statistics make a sequential scan look cheap.
BY_INDEX = sa.text("SET LOCAL enable_seqscan = off")
# A chunk is in the same transaction as the position of its job. So if the server loses both, they
# are done again, and the end of the job is committed after all its chunks.
ASYNCHRONOUSLY = sa.text("SET LOCAL synchronous_commit = off")


@dataclass(frozen=True, slots=True)
class Chunk:
    """The result of a chunk: numbers of rows by outcome, and the time it took."""

    outcomes: Mapping[str, int]
    took_s: float

    @property
    def handled(self) -> int:
        """The number of rows."""
        return sum(self.outcomes.values())


class WorkStore:
    """The statements of a worker, which connects as mooring_registry."""

    def __init__(self, engine: AsyncEngine, lease_s: float = 5.0) -> None:
        """After the last renewal of the lease, no other process runs jobs for `lease_s`."""
        self._engine = engine
        self.lease = Lease(engine, LEASE, lease_s)

    async def running(self) -> list[int]:
        """The ids of the running jobs, in order."""
        query = sa.select(jobs.c.id).where(jobs.c.state == State.RUNNING).order_by(jobs.c.id)
        async with reading(self._engine) as connection:
            return list((await connection.execute(query)).scalars())

    async def work(self, term: int, job_id: int, size: int) -> Chunk | None:
        """Runs the next chunk of a job, of at most `size` rows. None if the job does not run any
        more.

        Raises `LeaseLost` if another process runs jobs, and `LostRace` if a broker was deleted
        meanwhile; then nothing was changed.
        """
        try:
            async with self.lease.turn(term) as connection:
                return await _work(connection, job_id, size)
        except IntegrityError as error:
            raise LostRace("a broker was deleted meanwhile") from error

    async def fail(self, job_id: int, failure: str) -> None:
        """Pauses a job that cannot go on; `failure` is text for people."""
        async with writing(self._engine) as connection:
            job = await _running(connection, job_id)
            if job is not None:
                await _step(connection, job, Action.FAIL, {"failure": failure})


async def _work(connection: AsyncConnection, job_id: int, size: int) -> Chunk | None:
    job = await _running(connection, job_id)
    if job is None:
        return None
    if fault := await _fault_of_token(connection, job.actor_id):
        await _step(connection, job, Action.FAIL, {"failure": fault})
        return None
    await connection.execute(BY_INDEX)
    is_sparse = job.filter is not None and not job.is_undo
    chunk = extent(job.reached, job.last_number, size, is_sparse=is_sparse)
    begun = time.perf_counter()
    # The best index depends on the values of the filter.
    async with planned_anew(connection):
        found = await connection.execute(
            _statement(job),
            {
                **parameters_of(job),
                "reached": chunk.reached,
                "until": chunk.until,
                "size": chunk.size,
            },
        )
    outcomes, highest = {}, 0
    for outcome, count, last in found:
        outcomes[outcome] = count
        highest = max(highest, last)
    done = Chunk(outcomes, time.perf_counter() - begun)
    reached = reached_by(chunk, done.handled, highest)
    changes = {
        "reached": reached,
        "handled": job.handled + done.handled,
        "busy_s": job.busy_s + done.took_s,
        "outcomes": tallied(job.outcomes, outcomes, _came_from(job)),
    }
    if reached < job.last_number:
        await connection.execute(ASYNCHRONOUSLY)
        await connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(changes))
    else:
        await _step(connection, job, Action.FINISH, {**changes, "ended_at": sa.func.now()})
    return done


async def _fault_of_token(connection: AsyncConnection, token_id: str) -> str:
    """Why the API token of a job may no longer run it; empty if it may, or if the actor has no API
    token.
    """
    try:
        wanted = UUID(token_id)
    except ValueError:
        return ""
    has_expired = sa.func.coalesce(api_tokens.c.expires_at <= sa.func.now(), sa.false())
    query = sa.select(
        api_tokens.c.is_active,
        has_expired.label("has_expired"),
        api_tokens.c.role.in_(RUNNING_ROLES).label("has_role"),
        api_tokens.c.fleet_ids.is_not(None).label("is_restricted"),
    ).where(api_tokens.c.id == wanted)
    token = (await connection.execute(query)).one_or_none()
    if token is None or not token.is_active:
        return "the API token of the job was revoked: resume it with another one"
    if token.has_expired:
        return "the API token of the job has expired: resume it with another one"
    if not token.has_role or token.is_restricted:
        return "the API token of the job may not run jobs any more: resume it with another one"
    return ""


def _statement(job: sa.Row[Any]) -> sa.TextClause:
    if job.is_undo:
        return statements.UNDO
    if job.filter is None:
        return statements.ASSIGN_LISTED
    return statements.assign_matching(job.filter)


def _came_from(job: sa.Row[Any]) -> str | None:
    """The outcome that the chunk's rows had before; None if the chunk adds rows."""
    if job.is_undo:
        return MOVED
    return PENDING if job.filter is None else None


async def _running(connection: AsyncConnection, job_id: int) -> sa.Row[Any] | None:
    """The job, locked; None if it does not run."""
    query = (
        sa.select(jobs)
        .where(jobs.c.id == job_id, jobs.c.state == State.RUNNING)
        .with_for_update(key_share=True)
    )
    return (await connection.execute(query)).one_or_none()


async def _step(
    connection: AsyncConnection, job: sa.Row[Any], action: Action, changes: Mapping[str, Any]
) -> None:
    """Takes an action of the process itself, and records it for the actor that started the job."""
    status = after(Status(State(job.state), job.is_undo), action)
    change = sa.update(jobs).where(jobs.c.id == job.id).values(state=status.state, **changes)
    row = (await connection.execute(change.returning(jobs))).one()
    logged = {"is_undo": row.is_undo, "outcomes": row.outcomes, "failure": row.failure}
    with _in_the_name_of(job):
        await audit.record(connection, f"job.{action}", str(job.id), after=logged)


@contextlib.contextmanager
def _in_the_name_of(job: sa.Row[Any]) -> Iterator[None]:
    name, token_id = actor.set(job.actor), actor_id.set(job.actor_id)
    proof = ticket.set(job.ticket)
    try:
        yield
    finally:
        actor.reset(name)
        actor_id.reset(token_id)
        ticket.reset(proof)
