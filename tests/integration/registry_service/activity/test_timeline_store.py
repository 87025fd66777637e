"""Timelines in the database: which events are written, kept and deleted, beside other changes."""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import msgspec
import psycopg
import pytest

import migrations
from chassis.database import Pool, engine_of, pool_of
from local.postgres import Postgres
from registry_service.activity import recording
from registry_service.activity.timeline import store as timeline
from registry_service.activity.timeline.events import (
    CONNECT_REFUSED,
    CONNECTED,
    REGISTRATION_REFUSED,
    Client,
    Event,
    Events,
    Times,
    rows_of,
)
from registry_service.activity.timeline.store import TimelineStore
from tests.stack import PATIENCE_S, Database

WITHOUT_LOCKS = import_module("migrations.versions.0042_events_without_locks")

DEVICES = """
INSERT INTO fleets (id, name) VALUES ('f', 'f') ON CONFLICT DO NOTHING;
INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_username, mqtt_password_hash,
                     credential_salt, provisioned_at)
SELECT 'device-' || n, '', '', 'f', 'name-' || n, '', '', NULL
FROM generate_series(1, {count}) AS n
"""
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()


@pytest.fixture
async def pools(database: Database) -> AsyncIterator[list[Pool]]:
    """One for each role that writes events."""
    async with contextlib.AsyncExitStack() as exits:
        yield [
            await exits.enter_async_context(pool_of(database.url(role)))
            for role in ("mooring_registry", "mooring_access")
        ]


def rows(database: Database) -> list[Any]:
    return database.execute(
        "SELECT uuid, kind, what, address, count FROM device_events"
        " JOIN devices ON devices.id = device_id ORDER BY 1, 2, 3, 4"
    )


def refused(uuid: str, what: str = "A", address: str = "") -> Event:
    return Event(Client(uuid), REGISTRATION_REFUSED, what, 0, address)


async def test_equal_events_of_an_hour_share_a_row(database: Database, pools: list[Pool]) -> None:
    database.execute(DEVICES.format(count=2))
    for pool in pools:
        for at in (NOW, NOW + 3599):
            await timeline.note(pool, {refused("device-1"): Times(2, at, at + 0.5)})
    await timeline.note(pools[0], {refused("device-1"): Times(1, NOW + 3600, NOW + 3600)})
    counted = database.execute(
        "SELECT count, extract(epoch FROM first_at)::float8, extract(epoch FROM last_at)::float8"
        " FROM device_events ORDER BY id"
    )
    assert counted == [(8, NOW, NOW + 3599.5), (1, NOW + 3600, NOW + 3600)]


async def test_an_event_is_for_the_device_of_that_name(
    database: Database, pools: list[Pool]
) -> None:
    """A username is that of a registered device with this uuid, or of an imported device."""
    database.execute(DEVICES.format(count=3))
    database.execute("UPDATE devices SET mqtt_username = 'device_device-2' WHERE id = 2")
    clients = [
        Client("device-2", "device_device-2"),  # the username that its uuid makes
        Client("device-1", "device_device-1"),  # the username of none
        Client("", "name-3"),  # imported
        Client("", "name-4"),  # of none
        Client("", ""),
        Client("nobody"),
    ]
    taken = {Event(client, CONNECTED, "", 1): Times(1, NOW, NOW) for client in clients}
    await timeline.note(pools[1], taken)
    assert [row[:2] for row in rows(database)] == [
        ("device-2", "connected"),
        ("device-3", "connected"),
    ]


async def test_the_newest_of_each_are_kept(database: Database, pools: list[Pool]) -> None:
    database.execute(DEVICES.format(count=2))
    for begin in range(0, 60, 20):
        await timeline.note(
            pools[0],
            {
                Event(Client("device-1"), kind, f"{n:03}"): Times(1, NOW + n, NOW + n)
                for n in range(begin, begin + 20)
                for kind in (REGISTRATION_REFUSED, CONNECT_REFUSED, CONNECTED)
            },
        )
    found = [(kind == CONNECTED, int(what)) for _, kind, what, _, _ in rows(database)]
    assert sorted(n for is_connected, n in found if is_connected) == [*range(35, 60)]
    refusals = Counter(n for is_connected, n in found if not is_connected)
    # Of the oldest of two at the same time either may have gone.
    assert refusals == {47: 1, **dict.fromkeys(range(48, 60), 2)}


async def test_writers_do_not_disturb_one_another(database: Database, pools: list[Pool]) -> None:
    """Not at the same devices, and not while these are changed and deleted."""
    database.execute(DEVICES.format(count=40))

    async def write(pool: Pool, begin: int) -> None:
        for n in range(begin, begin + 10):
            taken = {
                refused(f"device-{device}", f"{n:03}"): Times(1, NOW + n, NOW + n)
                for device in range(1, 41)
            }
            await timeline.note(pool, taken)

    async def change() -> None:
        connection = await psycopg.AsyncConnection.connect(
            database.url("mooring_registry"), autocommit=True
        )
        async with connection:
            for device in range(21, 41):
                await connection.execute("UPDATE devices SET is_online = true WHERE id <= 20")
                await connection.execute("DELETE FROM devices WHERE id = %s", [device])

    await asyncio.gather(*(write(pools[n % 2], 10 * n) for n in range(6)), change())
    await timeline.note(
        pools[0],
        {refused(f"device-{n}", "999"): Times(1, NOW + 999, NOW + 999) for n in range(1, 41)},
    )
    found = Counter(uuid for uuid, *_ in rows(database))
    assert found == {f"device-{n}": 25 for n in range(1, 21)}


@contextlib.asynccontextmanager
async def open_note(database: Database, *uuids: str) -> AsyncIterator[None]:
    """A transaction that has written an event of each device, and is committed at the end."""
    taken = {refused(uuid): Times(1, NOW, NOW) for uuid in uuids}
    given = msgspec.json.encode(rows_of(taken.items())).decode()
    url = database.url("mooring_access")
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(timeline.NOTE, [given])
        yield


async def test_events_lock_no_device(database: Database) -> None:
    """A shared lock too would let transactions that change the same devices wait for each other."""
    database.execute(DEVICES.format(count=2))
    async with open_note(database, "device-1", "device-2"):
        locked = database.execute("SELECT id FROM devices ORDER BY id FOR UPDATE NOWAIT")
    assert len(locked) == len(rows(database)) == 2


@pytest.mark.parametrize("statement", ["DELETE FROM devices WHERE id = 1", "TRUNCATE devices"])
async def test_a_deletion_waits_for_events_under_way(database: Database, statement: str) -> None:
    database.execute(DEVICES.format(count=2))
    waits = "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND wait_event_type = 'Lock'"
    async with asyncio.timeout(PATIENCE_S), open_note(database, "device-1", "device-2"):
        deletion = asyncio.create_task(asyncio.to_thread(database.execute, statement))
        while database.execute(waits, statement) != [(1,)]:
            await asyncio.sleep(0.02)
    await deletion
    devices = database.execute("SELECT id FROM devices")
    assert database.execute("SELECT device_id FROM device_events") == devices


@pytest.mark.parametrize("is_done", [False, True])
def test_events_of_an_earlier_installation_are_kept_and_deleted_with_their_devices(
    postgres: Postgres, template: str, is_done: bool
) -> None:
    name = f"test_{secrets.token_hex(6)}"
    database = Database(postgres, name, template)
    taken = {refused(f"device-{n}"): Times(1, NOW, NOW) for n in (1, 2)}
    given = msgspec.json.encode(rows_of(taken.items())).decode()
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} OWNER mooring".encode())
        try:
            migrations.upgrade(database.url("mooring"), "0039")
            database.execute(DEVICES.format(count=2))
            database.execute(timeline.NOTE, given)
            if is_done:
                # Some databases have had this from the beginning.
                for part in (WITHOUT_LOCKS.TABLES, WITHOUT_LOCKS.NOTING, WITHOUT_LOCKS.DELETION):
                    database.execute(part)
            migrations.upgrade(database.url("mooring"))
            database.execute("DELETE FROM devices WHERE id = 1")
            left = [uuid for uuid, *_ in rows(database)]
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    assert left == ["device-2"]


async def test_old_addresses_are_cleared(database: Database, pools: list[Pool]) -> None:
    database.execute(DEVICES.format(count=1))
    now = datetime.now(UTC)
    taken = {}
    for days in (1, 29, 31, 400):
        at = (now - timedelta(days=days)).timestamp()
        for address in ("192.0.2.1", "192.0.2.2"):
            taken[refused("device-1", f"DAYS_{days}", address)] = Times(1, at, at)
    await timeline.note(pools[0], taken)
    engine = engine_of(database.url("mooring_registry"))
    try:
        store = TimelineStore(engine)
        await store.clear_addresses(timedelta(days=30))
        left = Counter((what, address is None) for _, _, what, address, _ in rows(database))
        assert left == {
            ("DAYS_1", False): 2,
            ("DAYS_29", False): 2,
            ("DAYS_31", True): 2,
            ("DAYS_400", True): 2,
        }
        await store.clear_addresses(timedelta(0))
    finally:
        await engine.dispose()
    assert {address for *_, address, _ in rows(database)} == {None}


@pytest.mark.heavy
async def test_a_storm_for_a_hundred_thousand_devices_is_bounded(
    database: Database, pools: list[Pool]
) -> None:
    """Memory and the rows of a turn are bounded, and what is written is found."""
    database.execute(DEVICES.format(count=100_000))
    events = Events()
    for n in range(1, 100_001):
        events.add(refused(f"device-{n}", "DEVICE_TAKEN", "192.0.2.1"), NOW)
    held = len(events)
    assert held == 30_000
    turns = 0
    while await recording.write_events(pools[0], events):
        turns += 1
    assert turns == held // recording.EVENTS_AT_ONCE
    [(written, devices)] = database.execute(
        "SELECT count(*), count(DISTINCT device_id) FROM device_events"
    )
    assert written == devices == held
