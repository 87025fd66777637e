"""Jobs, while something else changes the same devices between two chunks."""

import asyncio
from collections import Counter
from dataclasses import dataclass

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.database import engine_of
from chassis.leases import LeaseLost
from registry_service.bulk.jobs.lifecycle import Action
from registry_service.bulk.jobs.store import JobStore
from registry_service.bulk.jobs.work_store import WorkStore
from tests.stack import Database

SEED = """
WITH broker AS (
    INSERT INTO mqtt_broker_config (name, host, port)
    VALUES ('one', 'h', 1883), ('two', 'h', 1883)
), fleet AS (
    INSERT INTO fleets (id, name) VALUES ('demo', 'Demo')
)
INSERT INTO provisioning_keys (key_hash, fleet_id) VALUES ('', 'demo')
"""
FILL = """
INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_broker_id, mqtt_username,
                     mqtt_password_hash, credential_salt, credential_key_id, api_key_hash,
                     provisioned_by_key_id)
SELECT 'device-' || n, 'Test', 'pi', 'demo', pin, n, '', '', 1, '', id
FROM unnest(%s::integer[]) WITH ORDINALITY AS given (pin, n), provisioning_keys
"""
PINS = st.sampled_from([None, 1, 2])
# What happens before a chunk: the device with this number is pinned differently, or deleted.
CHANGES = st.dictionaries(
    st.integers(0, 6), st.tuples(st.integers(1, 12), PINS | st.just("deleted")), max_size=5
)


@dataclass(frozen=True)
class World:
    """A database with a few devices, and the process that runs its jobs."""

    # The connection stays open, because the test reads much.
    database: psycopg.Connection
    jobs: JobStore
    work: WorkStore
    term: int

    def pins(self) -> dict[str, int | None]:
        return dict(self.database.execute("SELECT uuid, mqtt_broker_id FROM devices").fetchall())

    def change(self, number: int, pin: int | str | None) -> None:
        uuid = f"device-{number}"
        if pin == "deleted":
            self.database.execute("DELETE FROM devices WHERE uuid = %s", [uuid])
        else:
            update = "UPDATE devices SET mqtt_broker_id = %s WHERE uuid = %s"
            self.database.execute(update, [pin, uuid])

    def previous(self, job_id: int) -> dict[str, int | None]:
        rows = "SELECT device_uuid, previous_broker_id FROM job_rows WHERE job_id = %s"
        return dict(self.database.execute(rows, [job_id]).fetchall())

    async def check_run(
        self,
        job_id: int,
        action: Action,
        target: int | None,
        size: int,
        changes: dict[int, tuple[int, int | str | None]],
    ) -> None:
        """Runs a job to its end, and checks what each chunk has changed."""
        await self.jobs.take(job_id, action)
        chunk = 0
        while (await self.jobs.job(job_id)).state == "running":
            if chunk in changes:
                self.change(*changes[chunk])
            before = self.pins()
            assert await self.work.work(self.term, job_id, size) is not None
            after, previous = self.pins(), self.previous(job_id)
            assert after.keys() == before.keys()
            changed = {uuid for uuid in before if before[uuid] != after[uuid]}
            assert len(changed) <= size
            for uuid in changed:
                written = (target, previous[uuid])
                expected = (previous[uuid], target) if action is Action.START else written
                assert (before[uuid], after[uuid]) == expected
            chunk += 1


def test_chunks_change_only_devices_of_the_job(database: Database) -> None:
    database.execute(SEED)
    with asyncio.Runner() as loop, psycopg.connect(database.url("mooring")) as connection:
        connection.autocommit = True
        engine = engine_of(database.url("mooring_registry"), pool_size=2)
        work = WorkStore(engine)
        term = loop.run(work.lease.take("tests"))
        assert term is not None
        world = World(connection, JobStore(engine), work, term)

        @settings(max_examples=15, deadline=None, database=None, derandomize=True)
        @given(
            st.lists(PINS, max_size=12), PINS, st.integers(1, 5), CHANGES, CHANGES, st.booleans()
        )
        def check(
            pins: list[int | None],
            target: int | None,
            size: int,
            changes: dict[int, tuple[int, int | str | None]],
            later: dict[int, tuple[int, int | str | None]],
            is_list: bool,
        ) -> None:
            connection.execute("DELETE FROM devices")
            connection.execute(FILL, [pins])
            before = world.pins()

            async def run() -> None:
                job = await world.jobs.create("assign", target, None if is_list else {})
                if is_list:
                    rows = [
                        {"number": number, "uuid": uuid, "target": target, "fault": ""}
                        for number, uuid in enumerate(reversed(before), 1)
                    ]
                    await world.jobs.add_rows(job.id, 0, rows, is_last=True)
                await world.check_run(job.id, Action.START, target, size, changes)
                if not changes:
                    assert set(world.pins().values()) <= {target}
                await world.check_run(job.id, Action.UNDO, target, size, later)
                if not changes and not later:
                    assert world.pins() == before
                counted = "SELECT outcome FROM job_rows WHERE job_id = %s"
                outcomes = Counter(row[0] for row in connection.execute(counted, [job.id]))
                assert outcomes["moved"] == 0
                assert (await world.jobs.job(job.id)).outcomes == outcomes

            loop.run(run())

        check()
        loop.run(engine.dispose())


async def test_a_process_that_has_lost_the_lease_changes_nothing(database: Database) -> None:
    database.execute(SEED)
    database.execute(FILL, [None])
    engine = engine_of(database.url("mooring_registry"), pool_size=2)
    try:
        jobs, work = JobStore(engine), WorkStore(engine, lease_s=0)
        job = await jobs.create("assign", 2, {})
        await jobs.take(job.id, Action.START)
        first, second = await work.lease.take("first"), await work.lease.take("second")
        assert first is not None
        assert second is not None
        with pytest.raises(LeaseLost):
            await work.work(first, job.id, 10)
        assert database.execute("SELECT mqtt_broker_id FROM devices") == [(None,)]
        done = await work.work(second, job.id, 10)
        assert done is not None
        assert done.outcomes == {"moved": 1}
        assert await work.work(second, job.id, 10) is None
    finally:
        await engine.dispose()
