"""Jobs in the database, for administration; `work_store` runs them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, writing
from chassis.errors import LostRace
from chassis.log import actor, actor_id
from chassis.searching import Start, ordered
from chassis.tickets import ticket
from registry_service.bulk.jobs import statements
from registry_service.bulk.jobs.lifecycle import Action, State, Status, after
from registry_service.bulk.jobs.outcomes import PENDING
from registry_service.errors import (
    BrokerInactive,
    BrokerUnknown,
    JobHasFilter,
    JobHasNoList,
    JobNotFound,
    JobStateForbids,
)
from registry_service.tables import brokers, devices, job_rows, jobs

Job = sa.Row[Any]


class JobStore:
    """Rows come from `jobs` and `job_rows`."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def create(
        self, kind: str, broker_id: int | None, wanted: Mapping[str, Any] | None
    ) -> Job:
        """The new job, a draft. `wanted` is its filter; None for a job with a list. Raises
        `BrokerUnknown`.
        """
        new = (
            sa.insert(jobs)
            .values(
                kind=kind,
                mqtt_broker_id=broker_id,
                filter=wanted,
                actor=actor.get(),
                actor_id=actor_id.get(),
                ticket=ticket.get(),
            )
            .returning(jobs)
        )
        async with writing(self._engine) as connection:
            await _require_broker(connection, broker_id, is_active=False)
            job: Job = (await connection.execute(new)).one()
            logged = {"kind": kind, "mqtt_broker_id": broker_id, "filter": wanted}
            await audit.record(connection, "job.create", str(job.id), after=logged)
            return job

    async def job(self, job_id: int) -> Job:
        """Raises `JobNotFound`."""
        query = sa.select(jobs).where(jobs.c.id == job_id)
        async with reading(self._engine) as connection:
            return _found((await connection.execute(query)).one_or_none())

    async def jobs_from(self, start: Start[int], state: str, limit: int) -> Sequence[Job]:
        """The next `limit` jobs, the newest first. An empty `state` means any."""
        query = ordered(
            sa.select(jobs), start, jobs.c.id, texts=(jobs.c.actor,), is_newest_first=True
        )
        if state:
            query = query.where(jobs.c.state == state)
        async with reading(self._engine) as connection:
            rows: Sequence[Job] = (await connection.execute(query.limit(limit))).all()
        return rows

    async def rows_after(
        self, job_id: int, number: int | None, outcome: str, limit: int
    ) -> Sequence[sa.Row[Any]]:
        """The next `limit` rows after `number`, in the order of their numbers. An empty `outcome`
        means any.
        """
        query = sa.select(job_rows).where(
            job_rows.c.job_id == job_id, job_rows.c.number > (number or 0)
        )
        if outcome:
            query = query.where(job_rows.c.outcome == outcome)
        async with reading(self._engine) as connection:
            return (await connection.execute(query.order_by(job_rows.c.number).limit(limit))).all()

    async def verdicts(self, job: Job, first: int, last: int) -> dict[int, sa.Row[Any]]:
        """The outcomes that the pending rows from `first` to `last` would have now, by number."""
        judge = {
            "job_id": job.id,
            "reached": first - 1,
            "until": last,
            "size": last - first + 1,
        }
        async with reading(self._engine) as connection:
            found = await connection.execute(statements.JUDGE_LISTED, judge)
            return {row.number: row for row in found}

    async def add_rows(
        self, job_id: int, upload: int, rows: Sequence[Mapping[str, Any]], *, is_last: bool
    ) -> Job:
        """Adds rows to the list. If `upload` is 0 and the call has rows or is the last, the list
        begins anew.

        It is safe to repeat. Raises `JobNotFound`, `JobHasFilter`, `JobStateForbids`, and
        `LostRace` if another upload has begun the list anew.
        """
        async with writing(self._engine) as connection:
            job = await _locked(connection, job_id)
            if job.filter is not None:
                raise JobHasFilter("this job is for all devices that its filter matches")
            if job.state != State.DRAFT:
                raise JobStateForbids("the list of a job that was started does not change")
            changes: dict[str, Any] = {}
            if upload == 0 and not rows and not is_last:
                return job
            if upload == 0:
                gone = sa.delete(job_rows).where(job_rows.c.job_id == job_id)
                await connection.execute(gone)
                upload = job.upload + 1
                changes = {"upload": upload, "is_uploaded": False, "last_number": 0}
            elif upload != job.upload:
                raise LostRace("another list has replaced this one")
            if rows:
                await connection.execute(
                    statements.ADD_ROWS, {"job_id": job_id, "rows": json.dumps(list(rows))}
                )
                changes["last_number"] = rows[-1]["number"]
            if is_last:
                changes |= {"is_uploaded": True, "outcomes": await _counted(connection, job_id)}
                logged = {"outcomes": changes["outcomes"]}
                await audit.record(connection, "job.add_rows", str(job_id), after=logged)
            return await _changed(connection, job, changes)

    async def take(self, job_id: int, action: Action) -> Job:
        """Takes the action, and returns the job in its new state.

        Raises `JobNotFound`, `JobStateForbids`; when it starts the job also `JobHasNoList`,
        `BrokerUnknown` and `BrokerInactive`.
        """
        async with writing(self._engine) as connection:
            job = await _locked(connection, job_id)
            status = after(Status(State(job.state), job.is_undo), action)
            changes: dict[str, Any] = {
                "state": status.state,
                "is_undo": status.is_undo,
                "failure": "",
                "ended_at": sa.func.now() if status.state is State.CANCELLED else None,
            }
            if action in (Action.START, Action.UNDO):
                changes |= {"reached": 0, "handled": 0, "busy_s": 0.0, "started_at": sa.func.now()}
            if action is Action.START:
                changes |= await _values_at_start(connection, job)
            if status.state is State.RUNNING:
                changes |= {
                    "actor": actor.get(),
                    "actor_id": actor_id.get(),
                    "ticket": ticket.get(),
                }
            await audit.record(connection, f"job.{action}", str(job_id))
            return await _changed(connection, job, changes)

    async def groups(self, job: Job) -> tuple[Sequence[sa.Row[Any]], str]:
        """The job's devices in groups that resolve alike; and placement_version with them."""
        version = sa.text("SELECT version::text FROM placement_version")
        async with writing(self._engine) as connection:
            await connection.execute(
                sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            )
            grouped = statements.GROUP_LISTED
            if job.filter is not None:
                grouped = statements.group_matching(job.filter)
            found = (await connection.execute(grouped, parameters_of(job))).all()
            return found, (await connection.execute(version)).scalar_one()


def parameters_of(job: Job) -> dict[str, Any]:
    """The parameters of the statements about the job's devices."""
    return {
        **(job.filter or {}),
        "job_id": job.id,
        "target": job.mqtt_broker_id,
    }


async def _values_at_start(connection: AsyncConnection, job: Job) -> dict[str, Any]:
    """Values that are fixed at the start: devices that register later are not part of the job."""
    await _require_broker(connection, job.mqtt_broker_id, is_active=True)
    if job.filter is not None:
        last = sa.select(sa.func.coalesce(sa.func.max(devices.c.id), 0))
        return {"last_number": await connection.scalar(last)}
    if not job.is_uploaded:
        raise JobHasNoList("upload the list of its devices first, or give it a filter")
    return {}


async def _require_broker(
    connection: AsyncConnection, broker_id: int | None, *, is_active: bool
) -> None:
    """Raises `BrokerUnknown`, and `BrokerInactive` if `is_active` requires an active broker."""
    if broker_id is None:
        return
    query = sa.select(brokers.c.is_active).where(brokers.c.id == broker_id)
    found = (await connection.execute(query)).scalar_one_or_none()
    if found is None:
        raise BrokerUnknown("there is no such broker", field="mqtt_broker_id")
    if is_active and not found:
        raise BrokerInactive("activate the broker before devices are pinned to it")


async def _counted(connection: AsyncConnection, job_id: int) -> dict[str, int]:
    query = (
        sa.select(job_rows.c.outcome, sa.func.count())
        .where(job_rows.c.job_id == job_id)
        .group_by(job_rows.c.outcome)
    )
    found = {row[0]: row[1] for row in await connection.execute(query)}
    return {PENDING: 0} | found if found else {}


async def _locked(connection: AsyncConnection, job_id: int) -> Job:
    query = sa.select(jobs).where(jobs.c.id == job_id).with_for_update(key_share=True)
    return _found((await connection.execute(query)).one_or_none())


async def _changed(connection: AsyncConnection, job: Job, changes: Mapping[str, Any]) -> Job:
    if not changes:
        return job
    change = sa.update(jobs).where(jobs.c.id == job.id).values(dict(changes)).returning(jobs)
    changed: Job = (await connection.execute(change)).one()
    return changed


def _found(row: Job | None) -> Job:
    if row is None:
        raise JobNotFound("there is no such job")
    return row
