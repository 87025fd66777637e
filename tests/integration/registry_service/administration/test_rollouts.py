"""Rollouts from beginning to end: for devices, over the API, and by an operator's SQL."""

import asyncio
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mooring.broker.v1 import resolution_pb2
from mooring.registry.v1 import registration_pb2

import broker_service.__main__
from domain.waves import position, wave_of
from tests.stack import Database, Peer, Stack
from tests.unit.domain.test_waves import SALTS

UUIDS = [f"device-{n}" for n in range(40)]
SALT = "first"
ROLLOUT = "/fleets/north/rollout"
BEGIN = "UPDATE fleets SET rollout_broker_id = %s, rollout_percent = %s"


async def furnished(stack: Stack) -> tuple[int, int]:
    """Makes a fleet `north` with devices on its old broker, and a new broker; the ids of both."""
    old = await stack.create_broker("Old", host="old.example.com")
    new = await stack.create_broker("New", host="new.example.com")
    await stack.create_fleet("north", mqtt_broker_id=old)
    key = await stack.create_key(fleet_id="north")
    await asyncio.gather(*(stack.register(uuid, key=key) for uuid in UUIDS))
    return old, new


async def put(stack: Stack, status: int, **body: Any) -> Any:
    """Sets the rollout, expects `status`, and returns the answer."""
    response = await stack.admin("PUT", ROLLOUT, json=body)
    assert response.status_code == status, response.text
    return response.json()


async def answers(stack: Stack) -> dict[str, Any]:
    """The answer to each device."""
    found = await asyncio.gather(*(stack.connection(uuid) for uuid in UUIDS))
    return {uuid: answer.json() for uuid, answer in zip(UUIDS, found, strict=True)}


def hosts(found: dict[str, Any]) -> dict[str, str]:
    """The host to which each device was sent."""
    return {uuid: mqtt["brokerConfig"]["host"] for uuid, mqtt in found.items()}


def expected(percent: float) -> dict[str, str]:
    """The host to which each device should be sent."""
    return {
        uuid: "new.example.com" if wave_of(SALT, percent, uuid) else "old.example.com"
        for uuid in UUIDS
    }


async def test_a_rollout_from_beginning_to_end(stack: Stack) -> None:
    old, new = await furnished(stack)
    before = await answers(stack)
    assert (await stack.admin("GET", ROLLOUT)).json()["reason"] == "ROLLOUT_NOT_FOUND"

    begun = await put(stack, 201, broker_id=new, percent=10, salt=SALT)
    assert hosts(await answers(stack)) == expected(10)
    widened = await put(stack, 200, broker_id=new, percent=62.5)
    assert widened == {**begun, "percent": 62.5}
    after = await answers(stack)
    assert hosts(after) == expected(62.5)
    # For a device, the source is its fleet both before and after.
    assert {mqtt["source"] for mqtt in after.values()} == {"fleet"}
    assert (await stack.admin("GET", ROLLOUT)).json() == widened
    assert (await stack.admin("GET", "/fleets/north")).json()["rollout"] == widened
    await put(stack, 200, broker_id=new, percent=10)
    assert hosts(await answers(stack)) == expected(10)

    # Stopping takes all devices back; those that had moved get another password.
    assert (await stack.admin("DELETE", ROLLOUT)).status_code == 204
    back = await answers(stack)
    assert hosts(back) == hosts(before)
    for uuid, mqtt in before.items():
        is_same = not wave_of(SALT, 62.5, uuid)
        assert (mqtt == back[uuid]) == is_same
        assert (mqtt["password"] == back[uuid]["password"]) == is_same
    assert stack.database.execute("SELECT DISTINCT mqtt_broker_id FROM devices") == [(None,)]
    for method, path in (("DELETE", ROLLOUT), ("POST", f"{ROLLOUT}/complete")):
        gone = await stack.admin(method, path)
        assert (gone.status_code, gone.json()["reason"]) == (404, "ROLLOUT_NOT_FOUND")

    again = await put(stack, 201, broker_id=new, percent=100)
    assert again["salt"] != SALT
    at_last = await answers(stack)
    assert set(hosts(at_last).values()) == {"new.example.com"}
    completed = await stack.admin("POST", f"{ROLLOUT}/complete")
    assert completed.status_code == 200
    assert (completed.json()["mqtt_broker_id"], completed.json()["rollout"]) == (new, None)
    # Nothing changes for devices that were there already, and no device is pinned.
    assert await answers(stack) == at_last
    assert stack.database.execute("SELECT DISTINCT mqtt_broker_id FROM devices") == [(None,)]

    lines = stack.database.execute(
        "SELECT action, before, after FROM audit_log WHERE action LIKE 'rollout.%%' AND"
        " refusal = '' ORDER BY id"
    )
    assert [action for action, _, _ in lines] == [
        *["rollout.set"] * 3,
        "rollout.stop",
        "rollout.set",
        "rollout.complete",
    ]
    assert [after["rollout"] and after["rollout"]["percent"] for _, _, after in lines] == [
        *(10, 62.5, 10, None, 100, None)
    ]
    assert (lines[-1][1]["mqtt_broker_id"], lines[-1][2]["mqtt_broker_id"]) == (old, new)


async def test_the_explanation_of_a_device_during_a_rollout(stack: Stack) -> None:
    _, new = await furnished(stack)
    await put(stack, 201, broker_id=new, percent=50, salt=SALT)
    early, second, *_, late = sorted(UUIDS, key=lambda uuid: position(SALT, uuid))
    explanation = (await stack.admin("GET", f"/devices/{early}/broker")).json()
    assert (explanation["source"], explanation["mqtt_broker_id"]) == ("rollout", new)
    explanation = (await stack.admin("GET", f"/devices/{late}/broker")).json()
    assert (explanation["source"], explanation["steps"][1]["reason"]) == ("fleet", "NOT_REACHED")
    # If a device of another fleet were in this one, its own position in the waves would count.
    await stack.register("elsewhere")
    response = await stack.admin(
        "POST", "/devices/elsewhere/broker/explain", json={"fleet_id": "north"}
    )
    decided = "rollout" if wave_of(SALT, 50, "elsewhere") else "fleet"
    assert response.json()["source"] == decided
    response = await stack.admin("POST", "/resolution/explain", json={"fleet_id": "north"})
    assert response.json()["steps"][1]["reason"] == "NOT_REACHED"

    # A pin has priority; where the new broker cannot serve, the fleet's own broker does.
    pinned = {"mqtt_broker_id": stack.default_broker_id}
    await stack.admin("PATCH", f"/devices/{early}", json=pinned)
    assert (await stack.connection(early)).json()["source"] == "device"
    await stack.admin("PATCH", f"/brokers/{new}", json={"is_active": False})
    assert (await stack.connection(second)).json()["broker"] == "mqtt://old.example.com:1883"


async def test_new_devices_are_reached_like_existing_ones(stack: Stack) -> None:
    _, new = await furnished(stack)
    key = await stack.create_key(fleet_id="north")
    await put(stack, 201, broker_id=new, percent=30, salt=SALT)
    # The first new devices are read and resolved; the others are guessed.
    for first, last, percent in ((0, 5, 30), (5, 20, 30), (20, 40, 70)):
        if percent == 70:
            await put(stack, 200, broker_id=new, percent=70)
        for n in range(first, last):
            made = await stack.register(f"new-{n}", key=key)
            assert made.status_code == 201
            wave = wave_of(SALT, percent, f"new-{n}")
            host = "new.example.com" if wave else "old.example.com"
            assert made.json()["mqtt"]["brokerConfig"]["host"] == host
    names = stack.database.execute(
        "SELECT uuid, told_broker_ids[1] = %s, mqtt_broker_id FROM devices"
        " WHERE uuid LIKE 'new-%%'",
        new,
    )
    assert {uuid: (is_told, None) for uuid, is_told, _ in names} == {
        f"new-{n}": (bool(wave_of(SALT, 30 if n < 20 else 70, f"new-{n}")), None) for n in range(40)
    }


async def test_refusals_have_a_reason_and_a_field(stack: Stack) -> None:
    old, new = await furnished(stack)
    idle = await stack.create_broker("Idle", is_active=False)
    await stack.create_fleet("alone")
    await stack.admin("PATCH", "/fleets/alone", json={"allowed_broker_ids": [old, idle]})
    good: dict[str, Any] = {"broker_id": new, "percent": 1}
    for path, body, refusal in (
        ("nowhere", good, (404, "FLEET_NOT_FOUND", None)),
        ("no%00where", good, (404, "FLEET_NOT_FOUND", None)),
        ("north", {**good, "broker_id": 999}, (422, "BROKER_UNKNOWN", "broker_id")),
        ("north", {**good, "broker_id": idle}, (409, "BROKER_INACTIVE", "broker_id")),
        ("alone", {**good, "broker_id": idle}, (409, "BROKER_INACTIVE", "broker_id")),
        ("alone", good, (409, "BROKER_NOT_ALLOWED", "broker_id")),
        ("north", {**good, "percent": 100.01}, (422, "INVALID_INPUT", "percent")),
        ("north", {**good, "percent": -1}, (422, "INVALID_INPUT", "percent")),
        ("north", {**good, "percent": 0.001}, (422, "INVALID_INPUT", "percent")),
        ("north", {**good, "percent": 1e300}, (422, "INVALID_INPUT", "percent")),
        ("north", {**good, "percent": "1"}, (422, "INVALID_INPUT", "percent")),
        ("north", {**good, "salt": "a/b"}, (422, "INVALID_INPUT", "salt")),
        ("north", {**good, "salt": ""}, (422, "INVALID_INPUT", "salt")),
        ("north", {"percent": 1}, (422, "INVALID_INPUT", "broker_id")),
    ):
        refused = await stack.admin("PUT", f"/fleets/{path}/rollout", json=body)
        problem = refused.json()
        found = (refused.status_code, problem["reason"], problem.get("field"))
        assert found == refusal, (path, body)
    rollouts = "SELECT count(*) FROM fleets WHERE rollout_broker_id IS NOT NULL"
    assert stack.database.execute(rollouts) == [(0,)]

    # A rollout that was valid at its beginning may be refused at its completion.
    await put(stack, 201, **good)
    await stack.admin("PATCH", f"/brokers/{new}", json={"is_active": False})
    refused = await stack.admin("POST", f"{ROLLOUT}/complete")
    assert (refused.status_code, refused.json()["reason"]) == (409, "BROKER_INACTIVE")


async def test_without_the_broker_service_a_reached_device_stays_at_its_broker(
    stack: Stack,
) -> None:
    _, new = await furnished(stack)
    await stack.stop_broker_service()
    stack.database.execute(f"{BEGIN} WHERE id = 'north'", new, 100)
    mqtt = (await stack.connection(UUIDS[0])).json()
    assert (mqtt["broker"], mqtt["stale"]) == ("mqtt://old.example.com:1883", True)
    await stack.start_broker_service()
    async with asyncio.timeout(10):
        while "stale" in (mqtt := (await stack.connection(UUIDS[0])).json()):
            await asyncio.sleep(0.05)
    assert mqtt["broker"] == "mqtt://new.example.com:1883"


async def placements(peer: Peer) -> list[tuple[int, int]]:
    """The broker to which a broker service sends each device, and the source."""
    request = resolution_pb2.ResolveBrokersRequest(
        subjects=[resolution_pb2.Subject(device_uuid=uuid) for uuid in UUIDS]
    )
    outcomes = (await peer.resolution("ResolveBrokers", request)).outcomes
    return [(outcome.resolution.broker_id, outcome.resolution.source) for outcome in outcomes]


async def connections(peer: Peer) -> list[tuple[int, str]]:
    """The broker to which a registry sends each device, and the generation of the answer."""
    request = registration_pb2.GetConnectionsRequest(
        requests=[
            registration_pb2.ConnectionRequest(uuid=uuid, device_api_key="test-api-key")
            for uuid in UUIDS
        ]
    )
    outcomes = (await peer.registration("GetConnections", request)).outcomes
    return [(item.connection.broker_id, item.connection.generation) for item in outcomes]


async def test_two_replicas_of_each_service_give_the_same_answers(stack: Stack) -> None:
    old, new = await furnished(stack)
    port = await stack.exit.enter_async_context(
        broker_service.__main__.running(stack.broker_config())
    )
    other_broker_service = await stack.peer(port)
    other_registry = await stack.another_registry(broker_service_address=f"127.0.0.1:{port}")
    for percent in (1, 40, 80, 20):
        response = await stack.admin(
            "PUT", ROLLOUT, json={"broker_id": new, "percent": percent, "salt": SALT}
        )
        assert response.status_code in (200, 201)
        # The answers agree at once, before the change has been announced.
        of_registry = await connections(other_registry)
        assert of_registry == await connections(stack.registry)
        of_broker_service = await placements(other_broker_service)
        assert of_broker_service == await placements(stack.broker)
        there = [new if wave_of(SALT, percent, uuid) else old for uuid in UUIDS]
        assert [broker_id for broker_id, _ in of_registry] == there
        assert [broker_id for broker_id, _ in of_broker_service] == there


def test_sql_and_python_compute_the_same_position(database: Database) -> None:
    query = b"SELECT rollout_position(%s, %s)"
    with psycopg.connect(database.url("mooring_broker")) as connection:

        @settings(max_examples=300, deadline=None)
        @given(SALTS, SALTS | st.text(st.characters(codec="ascii", exclude_characters="\0\\")))
        def agree(salt: str, uuid: str) -> None:
            row = connection.execute(query, [salt, uuid]).fetchone()
            assert row == (position(salt, uuid),)

        agree()


READ = "SELECT rollout_broker_id, rollout_percent, rollout_salt, rollout_began_at FROM fleets"
REACHED = """
SELECT d.uuid
FROM devices d
JOIN fleets f ON f.id = d.fleet_id
WHERE rollout_position(f.rollout_salt, d.uuid) < f.rollout_percent * 100;
"""


def test_an_operator_runs_a_rollout_by_sql(database: Database) -> None:
    [(broker_id,)] = database.execute(
        "INSERT INTO mqtt_broker_config (name, host, port) VALUES ('x', 'h', 1) RETURNING id"
    )
    database.execute("INSERT INTO fleets (id, name) VALUES ('north', 'North')")
    database.execute(BEGIN, broker_id, 10, role="mooring_operator")
    [(_, percent, salt, began_at)] = database.execute(READ)
    assert (percent, len(salt)) == (10, 16)
    database.execute("UPDATE fleets SET rollout_percent = 50", role="mooring_operator")
    assert database.execute(READ) == [(broker_id, 50, salt, began_at)]
    for changes, hint in (
        ("rollout_percent = NULL", "in the same statement"),
        ("rollout_percent = 101", "in the same statement"),
        ("rollout_salt = 'a/b'", "letters, digits"),
    ):
        with pytest.raises(psycopg.errors.CheckViolation) as refused:
            database.execute(f"UPDATE fleets SET {changes}", role="mooring_operator")
        assert hint in (refused.value.diag.message_hint or "")
    database.execute("UPDATE fleets SET rollout_salt = NULL", role="mooring_operator")
    [(*_, another, later)] = database.execute(READ)
    assert another != salt
    assert later > began_at
    assert database.execute(REACHED, role="mooring_operator") == []
    database.execute("UPDATE fleets SET rollout_broker_id = NULL", role="mooring_operator")
    assert database.execute(READ) == [(None, None, None, None)]
