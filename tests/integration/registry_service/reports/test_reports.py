"""What devices say of their brokers: through a gateway, the services and the database."""

import asyncio
from typing import Any

import httpx2
import psycopg
import pytest
from mooring.broker.v1 import device_counts_pb2, device_counts_pb2_grpc

from broker_service.brokers.device_counts.report_store import ReportStore
from chassis.database import engine_of
from chassis.trust import Access
from domain.reports import MIN_DEVICES, Reports
from registry_service.activity import recording
from tests.stack import PATIENCE_S, Stack

POLL_S = 0.02


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are written at once, so that a test does not wait for seconds."""
    monkeypatch.setattr(recording, "EVENTS_EVERY_S", 0.05)


async def report(
    stack: Stack, uuid: str, state: str, broker: str, api_key: str = "test-api-key", **more: Any
) -> httpx2.Response:
    return await stack.http.post(
        f"/api/v1/device/{uuid}/mqtt/report",
        json={"state": state, "broker": broker, **more},
        headers={"Authorization": f"Bearer {api_key}"},
    )


async def told(stack: Stack, uuid: str) -> str:
    """Registers a device, and returns the URL of its broker."""
    answer = await stack.register(uuid)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["mqtt"]["broker"])


async def reports_of(stack: Stack, uuid: str) -> list[dict[str, Any]]:
    answer = await stack.admin("GET", f"/devices/{uuid}/reports")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def counted(stack: Stack, broker_id: int) -> dict[str, int]:
    answer = await stack.admin("GET", f"/brokers/{broker_id}/device-counts")
    assert answer.status_code == 200, answer.text
    found: dict[str, int] = answer.json()["reported"]
    return found


def aged(stack: Stack, minutes: float, state: str = "") -> None:
    """Makes the written reports older."""
    stack.database.execute(
        "UPDATE device_reports SET reported_at = reported_at - make_interval(secs => %s)"
        " WHERE %s IN ('', state)",
        minutes * 60,
        state,
    )


async def test_told_and_used_side_by_side(stack: Stack) -> None:
    broker_id = stack.default_broker_id
    url = await told(stack, "one")
    assert await reports_of(stack, "one") == []
    assert await counted(stack, broker_id) == {"connected": 0, "failing": 0, "failing_fleets": 0}

    answer = await report(stack, "one", "failed", url, error="timed out", generation="abc")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers["cache-control"] == "no-store"
    [failed] = await reports_of(stack, "one")
    assert failed.pop("reported_at")
    assert failed == {
        "state": "failed",
        "broker_id": broker_id,
        "error": "timed out",
        "generation": "abc",
    }
    assert await counted(stack, broker_id) == {"connected": 0, "failing": 1, "failing_fleets": 1}

    # Reaching it is known at once, although the minute is not over.
    assert (await report(stack, "one", "connected", url.upper())).status_code == 200
    assert [item["state"] for item in await reports_of(stack, "one")] == ["connected", "failed"]
    assert await counted(stack, broker_id) == {"connected": 1, "failing": 0, "failing_fleets": 0}
    # A list of brokers has no reports.
    listed = (await stack.admin("GET", "/device-counts")).json()["items"]
    assert {item["reported"] for item in listed} == {None}

    aged(stack, 6)
    assert await counted(stack, broker_id) == {"connected": 1, "failing": 0, "failing_fleets": 0}
    await report(stack, "one", "failed", url)
    assert await counted(stack, broker_id) == {"connected": 0, "failing": 1, "failing_fleets": 1}
    aged(stack, 6)
    assert await counted(stack, broker_id) == {"connected": 0, "failing": 0, "failing_fleets": 0}
    # Disabled devices count nowhere.
    aged(stack, 6, "connected")
    await report(stack, "one", "connected", url)
    assert (await counted(stack, broker_id))["connected"] == 1
    await stack.admin("PATCH", "/devices/one", json={"is_active": False})
    assert (await counted(stack, broker_id))["connected"] == 0
    assert (await report(stack, "one", "connected", url)).status_code == 403


async def test_a_failed_device_may_be_connected_elsewhere(stack: Stack) -> None:
    other_id = await stack.create_broker("Other", host="other.example.com")
    await told(stack, "one")
    # The device was told two brokers, as it is with fallbacks.
    brokers = [stack.default_broker_id, other_id]
    stack.database.execute("UPDATE devices SET told_broker_ids = %s", brokers)
    [(protocol, host, port)] = stack.database.execute(
        "SELECT protocol, host, port FROM mqtt_broker_config WHERE id = %s", brokers[0]
    )
    await report(stack, "one", "failed", f"{protocol}://{host}:{port}")
    await report(stack, "one", "connected", "mqtt://other.example.com")
    assert (await counted(stack, brokers[0]))["failing"] == 1
    assert (await counted(stack, other_id))["connected"] == 1


async def test_a_device_writes_once_a_minute(stack: Stack) -> None:
    url = await told(stack, "one")
    written = "SELECT xmin::text, xmax::text, ctid::text FROM device_reports"
    for error in ("first", *(f"again {n}" for n in range(20))):
        assert (await report(stack, "one", "failed", url, error=error)).status_code == 200
        rows = stack.database.execute(written)
        if error == "first":
            before = rows
    # Not even a lock was written.
    assert rows == before
    assert [item["error"] for item in await reports_of(stack, "one")] == ["first"]
    aged(stack, 1)
    await asyncio.gather(*(report(stack, "one", "failed", url, error="later") for _ in range(20)))
    assert [item["error"] for item in await reports_of(stack, "one")] == ["later"]


async def test_a_change_is_in_the_timeline(stack: Stack) -> None:
    url = await told(stack, "one")
    await report(stack, "one", "connected", url)
    aged(stack, 2)
    await report(stack, "one", "connected", url)
    aged(stack, 2)
    await report(stack, "one", "failed", "mqtt://elsewhere.example.com", error="refused")
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < 2:
            await asyncio.sleep(POLL_S)
            items = (await stack.admin("GET", "/devices/one/timeline")).json()["items"]
            found = [item for item in items if item["kind"].startswith("reported_")]
    assert [(item["kind"], item["broker_id"], item["count"]) for item in found] == [
        ("reported_failed", None, 1),
        ("reported_connected", stack.default_broker_id, 1),
    ]


async def test_reports_go_with_their_device(stack: Stack) -> None:
    url = await told(stack, "one")
    await report(stack, "one", "connected", url)
    assert (await stack.admin("DELETE", "/devices/one")).status_code == 204
    assert stack.database.execute("SELECT count(*) FROM device_reports") == [(0,)]
    assert (await report(stack, "one", "connected", url)).status_code == 401
    assert (await stack.admin("GET", "/devices/one/reports")).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, ""),
        (b"{", 400, ""),
        (b"\xff", 400, ""),
        (b"[]", 422, ""),
        (b'{"state": "connected"}', 422, "broker"),
        (b'{"broker": "mqtt://h"}', 422, "state"),
        (b'{"broker": "mqtt://h", "state": "up"}', 422, "state"),
        (b'{"broker": "mqtt://h", "state": 1}', 422, "state"),
        (b'{"broker": "\\u0000", "state": "failed"}', 422, "broker"),
        (b'{"broker": "x", "state": "failed", "error": "%b"}' % (b"x" * 257), 422, "error"),
        (b'{"broker": "x", "state": "failed", "generation": []}', 422, "generation"),
        (b'{"broker": "x", "state": "failed", "pad": "%b"}' % (b"x" * 2**20), 413, ""),
    ],
)
async def test_a_bad_report_gets_a_clear_error(
    stack: Stack, body: bytes, status: int, field: str
) -> None:
    await told(stack, "one")
    headers = {"Authorization": "Bearer test-api-key", "Content-Type": "application/json"}
    path = "/api/v1/device/one/mqtt/report"
    answer = await stack.http.post(path, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json().get("field", "") == field
    assert stack.database.execute("SELECT count(*) FROM device_reports") == [(0,)]
    if status == 422:
        headers["Content-Type"] = "text/plain"
        assert (await stack.http.post(path, content=body, headers=headers)).status_code == 415


async def test_other_fields_and_nulls_do_no_harm(stack: Stack) -> None:
    url = await told(stack, "one")
    answer = await report(stack, "one", "failed", url, error=None, generation=None, other={"a": 1})
    assert answer.status_code == 200
    assert (await stack.http.get("/api/v1/device/one/mqtt/report")).status_code == 405


async def test_a_viewer_of_another_fleet_sees_no_reports(stack: Stack) -> None:
    url = await told(stack, "one")
    await report(stack, "one", "connected", url)
    await stack.create_fleet("other")
    token = await stack.token(Access.VIEWER, fleets=("other",))
    answer = await stack.http.get(
        "/api/v1/devices/one/reports", headers={"Authorization": f"Bearer {token}"}
    )
    assert (answer.status_code, answer.json()["reason"]) == (404, "DEVICE_NOT_FOUND")


async def test_devices_of_several_fleets_put_a_broker_out_of_reach(stack: Stack) -> None:
    broker_id = stack.default_broker_id
    engine = engine_of(stack.database.url("mooring_broker"))
    store = ReportStore(engine)
    try:
        keys = [stack.provisioning_key]
        for fleet in ("f1", "f2"):
            await stack.create_fleet(fleet)
            keys.append(await stack.create_key(fleet_id=fleet))
        for n in range(MIN_DEVICES):
            answer = await stack.register(f"d{n}", key=keys[n % 3])
            url = answer.json()["mqtt"]["broker"]
            assert await store.out_of_reach() == frozenset()
            assert (await report(stack, f"d{n}", "failed", url)).status_code == 200
        assert await store.reports_of([broker_id]) == {broker_id: Reports(MIN_DEVICES, 3, 0)}
        assert await store.out_of_reach() == {broker_id}
        # As many devices that reach it outweigh them.
        for n in range(MIN_DEVICES):
            await stack.register(f"c{n}")
            await report(stack, f"c{n}", "connected", url)
        assert await store.out_of_reach() == frozenset()
        asked = device_counts_pb2.GetDeviceCountsRequest(broker_id=broker_id)
        stub = device_counts_pb2_grpc.DeviceCountServiceStub
        counts = (await stack.broker.ask(stub, "GetDeviceCounts", asked)).counts
        assert (counts.reported.connected, counts.reported.failing) == (MIN_DEVICES, MIN_DEVICES)
    finally:
        await engine.dispose()


async def test_no_report_outlives_a_device_that_is_being_deleted(stack: Stack) -> None:
    url = await told(stack, "one")
    with psycopg.connect(stack.database.url("mooring")) as deleting:
        deleting.execute("DELETE FROM devices")
        # The report finds the device, and waits for the deletion.
        reporting = asyncio.create_task(report(stack, "one", "connected", url))
        waiting = "SELECT pid FROM pg_locks WHERE NOT granted"
        async with asyncio.timeout(PATIENCE_S):
            while not stack.database.execute(waiting):
                await asyncio.sleep(POLL_S)
    assert (await reporting).status_code == 200
    assert stack.database.execute("SELECT count(*) FROM device_reports") == [(0,)]
