"""With a million devices no request about them reads a large part of the table."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.database import engine_of
from migrations.indexes import INDEXES
from registry_service.administration.devices.orders import BEGINNING, Position
from registry_service.administration.devices.search_store import SearchStore
from registry_service.administration.devices.store import SHOWN
from tests.stack import Database

pytestmark = pytest.mark.heavy

DEVICES = 1_000_000
# What a request may read: the steps of some indexes, and the counts of facets.
MAX_ROWS = 200_000
# The most pages that a scan may read: those of the row and of its entries, and the way down to the
# first one.
PAGES_PER_ROW, PAGES_PER_SCAN = 3, 10
SHAPE = """
INSERT INTO devices (uuid, device_name, device_type, fleet_id, region, mqtt_broker_id,
                     told_broker_ids, told_source, is_active, is_online, has_short_api_key,
                     credential_key_id, api_key_hash, provisioned_by_key_id, provisioned_at,
                     mqtt_username, mqtt_password_hash, credential_salt)
SELECT uuid, CASE WHEN n %% 10 = 0 THEN 'pump ' ELSE 'Device ' END || md5('name' || n),
       CASE WHEN n > 900000 AND n %% 7 = 0 THEN 'esp32' ELSE 'pi' END, fleet.id,
       CASE WHEN n > 950000 THEN 'eu' WHEN n %% 100000 = 5 THEN 'us' ELSE '' END,
       CASE WHEN n %% 1000 = 0 THEN broker.id END,
       CASE WHEN n %% 50000 = 3 THEN '{3}' WHEN n %% 100 = 0 THEN '{2}' ELSE '{1}' END::integer[],
       'default', n %% 5000 <> 0, n %% 3 = 0, n %% 20000 = 0, 1, '', key.id,
       now() - (%(devices)s - n) * interval '8 seconds', 'device_' || uuid, md5(uuid), md5(uuid)
FROM (
    SELECT n, CASE WHEN n %% 2 = 0 THEN 'dev-' ELSE '' END || md5(n::text) AS uuid,
           CASE WHEN n <= 900000 THEN 'big' WHEN n <= 990000 THEN 'fleet-' || n %% 50
                WHEN n <= 999997 THEN 'tail' ELSE 'three' END AS fleet
    FROM generate_series(1, %(devices)s) AS n
) AS made
JOIN fleets AS fleet ON fleet.id = made.fleet
JOIN provisioning_keys AS key ON key.fleet_id = fleet.id
CROSS JOIN (SELECT min(id) AS id FROM mqtt_broker_config) AS broker
ORDER BY n
"""
FLEETS = ("big", "tail", "three", *(f"fleet-{number}" for number in range(50)))


@pytest.fixture
def crowd(database: Database) -> Database:
    """A database with so many devices, most of them of one fleet, type, region and broker."""
    url = database.server.superuser_url(database.name)
    with psycopg.connect(url, autocommit=True) as connection:
        # Foreign keys and triggers would find nothing wrong, and take a minute.
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "INSERT INTO mqtt_broker_config (name, protocol, host, port)"
            " VALUES ('b', 'mqtt', 'h', 1)"
        )
        for fleet in FLEETS:
            connection.execute("INSERT INTO fleets (id, name) VALUES (%s, 'x')", [fleet])
            connection.execute(
                "INSERT INTO provisioning_keys (key_hash, fleet_id) VALUES (%s::text::bytea, %s)",
                [fleet, fleet],
            )
        for name in INDEXES:
            connection.execute(f"DROP INDEX {name}".encode())
        connection.execute(SHAPE.encode(), {"devices": DEVICES})
        for name, definition in INDEXES.items():
            connection.execute(f"CREATE INDEX {name} ON {definition}".encode())
        connection.execute("VACUUM (ANALYZE) devices")
    return database


@dataclass
class Read:
    """The rows that a request has read from tables and indexes, and the pages of scans that read
    many for their rows: an index may be read without returning a row.
    """

    rows: int = 0
    idle_pages: int = 0
    plans: list[Any] = field(default_factory=list)

    def add(self, plan: Mapping[str, Any]) -> None:
        self.plans.append(plan)
        for node in nodes(plan):
            if "Scan" in node["Node Type"] and "Relation Name" in node:
                removed = node.get("Rows Removed by Filter", 0)
                removed += node.get("Rows Removed by Index Recheck", 0)
                rows = round((node["Actual Rows"] + removed) * node["Actual Loops"])
                self.rows += rows
                pages = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
                if pages > PAGES_PER_ROW * rows + PAGES_PER_SCAN * node["Actual Loops"]:
                    self.idle_pages += pages


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


@pytest.fixture
async def explained(
    crowd: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[SearchStore, Read]]:
    """A store whose statements are explained before they are executed."""
    read = Read()
    execute = AsyncConnection.execute

    async def explaining(self: Any, statement: Any, parameters: Any = None, **options: Any) -> Any:
        if "FROM devices" in str(statement):
            text = sa.text(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}")
            [plan] = (await execute(self, text, parameters)).scalar_one()
            read.add(plan["Plan"])
        return await execute(self, statement, parameters, **options)

    monkeypatch.setattr(AsyncConnection, "execute", explaining)
    engine = engine_of(crowd.url("mooring_registry"))
    yield SearchStore(engine, SHOWN), read
    await engine.dispose()


def shapes(moment: str, key: str) -> list[dict[str, Any]]:
    """Filters for which many devices match, few, and none; with one index, several, and none."""
    return [
        {},
        *({"search": text} for text in (*"0dpez%", "device", "dev-1", "pump 12")),
        *({"uuid_prefix": text} for text in ("d", "dev-1", "f")),
        *({"fleet_id": fleet} for fleet in ("big", "tail", "three", "none")),
        *({"region": region} for region in ("", "eu", "us")),
        *({"told_broker_id": broker} for broker in (0, 1, 2, 3)),
        *({"device_type": kind} for kind in ("pi", "esp32")),
        *({name: True} for name in ("is_active", "is_online", "is_pinned", "short_api_key")),
        *({name: False} for name in ("is_active", "is_online", "is_pinned", "short_api_key")),
        *({"provisioned_by_key_id": one} for one in (key, "")),
        *({name: moment} for name in ("registered_since", "registered_before")),
        *({"credential_key_id": one} for one in (0, 1, 2)),
        *({"not_fleet_id": fleets} for fleets in (["big"], ["big", "tail"], ["three"])),
        {"not_device_type": ["pi"]},
        {"not_told_broker_id": [1]},
        {"not_search": ["d", "p"]},
        {"not_search": ["d", "p"], "is_online": True},
        {"search": "d", "fleet_id": "three"},
        {"search": "d", "fleet_id": "tail"},
        {"search": "p", "region": "us"},
        {"search": "d", "is_active": False, "is_online": True},
        {"fleet_id": "big", "device_type": "esp32"},
        {"fleet_id": "big", "registered_since": moment},
        {"told_broker_id": 2, "region": "eu", "is_online": False},
        {"fleet_id": "big", "not_told_broker_id": [1, 2], "is_online": True},
    ]


async def test_no_request_reads_much(crowd: Database, explained: tuple[SearchStore, Read]) -> None:
    store, read = explained
    [[moment]] = crowd.execute("SELECT provisioned_at FROM devices WHERE id = 900000")
    [[key]] = crowd.execute("SELECT id FROM provisioning_keys WHERE fleet_id = 'three'")
    tokens = [None, frozenset({"three"}), frozenset({"tail"}), frozenset({*FLEETS[3:], "big"})]
    for conditions in shapes(moment.isoformat(), str(key)):
        for within in tokens:
            following: Position | None = BEGINNING
            for what in ("page", "next page", "count", "facet"):
                read.rows, read.idle_pages, read.plans = 0, 0, []
                if what.endswith("page"):
                    if following is not None:
                        _, following = await store.page(conditions, following, 100, within)
                elif what == "count":
                    await store.count(conditions, within)
                else:
                    await store.facets(["device_type"], conditions, within)
                plans = json.dumps(read.plans, default=str)
                assert read.rows <= MAX_ROWS, (what, conditions, within, read.rows, plans)
                assert not read.idle_pages, (what, conditions, within, read.idle_pages, plans)
    # Few devices of no index are found in some pages.
    excluded = ["d", *"0123456789abce", *(f"f{digit}" for digit in "0123456789abcde")]
    conditions = {"is_online": True, "not_uuid_prefix": excluded}
    found, pages = 0, 0
    position: Position | None = BEGINNING
    while position is not None:
        page = await store.page(conditions, position, 100, None)
        found += len(page.rows)
        position, pages = page.following, pages + 1
    [[expected]] = crowd.execute("SELECT count(*) FROM devices WHERE is_online AND uuid ^@ 'ff'")
    assert found == expected
    assert 0 < pages < 60
