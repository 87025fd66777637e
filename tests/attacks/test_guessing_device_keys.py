"""An attacker guesses device API keys: with every call, from one or many addresses, at some
replicas.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx2
import pytest
from mooring.registry.v1 import registration_pb2 as pb

from chassis.database import engine_of
from registry_service.provisioning import guesses as module
from registry_service.provisioning import records
from registry_service.provisioning.guesses import (
    PER_ADDRESS,
    PER_DEVICE,
    PER_DEVICE_AND_ADDRESS,
)
from registry_service.provisioning.period_store import PeriodStore
from tests.integration.registry_service.provisioning.test_batches import registration
from tests.stack import PATIENCE_S, Peer, Stack

HOME, ELSEWHERE = "203.0.113.5", "198.51.100.7"
DOORS = ("connection", "rotate", "register", "report")
WRONG = "wrong-api-key-"


@pytest.fixture(autouse=True)
def _one_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ensures that the test ends in the same period in which it began."""
    monkeypatch.setattr(module, "PERIOD_S", 1_000_000_000)


async def over_http(stack: Stack, door: str, uuid: str, api_key: str) -> httpx2.Response:
    if door == "connection":
        answer: httpx2.Response = await stack.connection(uuid, api_key)
        return answer
    if door == "register":
        return await stack.register(uuid, deviceApiKey=api_key)
    path, body = {
        "rotate": ("credentials/rotate", None),
        "report": ("mqtt/report", {"state": "connected", "broker": "mqtt://localhost:1883"}),
    }[door]
    return await stack.http.post(
        f"/api/v1/device/{uuid}/{path}",
        json=body,
        headers={"Authorization": f"Bearer {api_key}"},
    )


async def shown(
    peer: Peer, tried: Iterable[tuple[str, str, str]], method: str = "GetConnections"
) -> list[str]:
    """The results of using API keys in order: the reason of the refusal, or empty if it was right.

    Each try is a uuid, an API key and an address.
    """
    requests = [
        pb.ConnectionRequest(uuid=uuid, device_api_key=key, source_address=address)
        for uuid, key, address in tried
    ]
    found: list[str] = []
    while requests:
        chunk, requests = requests[:1_000], requests[1_000:]
        request = {
            "GetConnections": pb.GetConnectionsRequest,
            "RotateCredentials": pb.RotateCredentialsRequest,
        }[method](requests=chunk)
        answer = await peer.registration(method, request)
        found += [outcome.error.reason for outcome in answer.outcomes]
    return found


async def registered(stack: Stack, uuid: str, address: str = HOME) -> None:
    """Registers from an address, with the API key that `right` gives."""
    request = pb.RegisterDevicesRequest(
        registrations=[registration(uuid, stack.provisioning_key, source_address=address)]
    )
    [outcome] = (await stack.registry.registration("RegisterDevices", request)).outcomes
    assert outcome.device.created, outcome


def right(uuid: str) -> str:
    return f"key-of-{uuid}"


@pytest.mark.parametrize("door", DOORS)
async def test_no_call_allows_endless_guesses(stack: Stack, door: str) -> None:
    await stack.register("d")
    answers = [await over_http(stack, door, "d", f"{WRONG}{n}") for n in range(30)]
    expected = 409 if door == "register" else 401
    statuses = [answer.status_code for answer in answers]
    assert statuses == [expected] * PER_DEVICE_AND_ADDRESS + [429] * (30 - PER_DEVICE_AND_ADDRESS)
    refused = answers[-1]
    assert refused.json()["reason"] == "RATE_LIMITED"
    assert int(refused.headers["Retry-After"]) > 0
    # No call distinguishes the right key from a wrong one now.
    for other in DOORS:
        assert (await over_http(stack, other, "d", "test-api-key")).status_code == 429
    # Other requests from the same address are not affected.
    assert (await stack.register("new")).status_code == 201
    assert (await stack.connection("new")).status_code == 200


async def test_one_batch_does_not_avoid_the_limit(stack: Stack) -> None:
    await registered(stack, "d")
    tried = [("d", f"{WRONG}{n}", ELSEWHERE) for n in range(500)] + [("d", right("d"), ELSEWHERE)]
    for method in ("GetConnections", "RotateCredentials"):
        reasons = await shown(stack.registry, tried, method)
        assert reasons.count("DEVICE_UNAUTHENTICATED") <= PER_DEVICE_AND_ADDRESS
        assert reasons[-1] == "RATE_LIMITED"


async def test_a_device_under_attack_is_still_served(stack: Stack) -> None:
    await registered(stack, "d")
    addresses = [f"198.51.100.{n}" for n in range(40)]
    tried = [("d", f"{WRONG}{n}", address) for n in range(20) for address in addresses]
    reasons = await shown(stack.registry, tried)
    assert reasons.count("DEVICE_UNAUTHENTICATED") == PER_DEVICE
    assert set(reasons) == {"DEVICE_UNAUTHENTICATED", "RATE_LIMITED"}
    assert await shown(stack.registry, [("d", right("d"), "192.0.2.99")]) == ["RATE_LIMITED"]
    assert await shown(stack.registry, [("d", right("d"), HOME)]) == [""]
    assert await shown(stack.registry, [("d", right("d"), f"::ffff:{HOME}")]) == [""]


async def test_a_device_under_attack_is_served_where_it_has_authenticated(
    stack: Stack,
) -> None:
    await registered(stack, "d")
    await shown(stack.registry, [("d", WRONG, ELSEWHERE)])
    assert await shown(stack.registry, [("d", right("d"), "192.0.2.1")]) == [""]
    tried = [("d", WRONG, f"198.51.100.{n % 40}") for n in range(400)]
    await shown(stack.registry, tried)
    for address, expected in (("192.0.2.1", ""), (HOME, "RATE_LIMITED")):
        assert await shown(stack.registry, [("d", right("d"), address)]) == [expected]


async def test_an_address_cannot_try_all_devices(stack: Stack) -> None:
    await registered(stack, "neighbour", ELSEWHERE)
    await registered(stack, "d")
    tried = [(f"u{n}", WRONG, f"2001:db8::{n:x}") for n in range(PER_ADDRESS)]
    assert set(await shown(stack.registry, tried)) == {"DEVICE_UNAUTHENTICATED"}
    # Addresses of one IPv6 network count as one host.
    assert await shown(stack.registry, [("d", right("d"), "2001:db8::ffff:1")]) == ["RATE_LIMITED"]
    tried = [(f"u{n}", WRONG, ELSEWHERE) for n in range(PER_ADDRESS)]
    await shown(stack.registry, tried)
    assert await shown(stack.registry, [("d", right("d"), ELSEWHERE)]) == ["RATE_LIMITED"]
    # Devices that authenticated from there before are still served, and so is a new one.
    assert await shown(stack.registry, [("neighbour", right("neighbour"), ELSEWHERE)]) == [""]
    await registered(stack, "new", ELSEWHERE)


async def test_replicas_do_not_multiply_the_limit(stack: Stack) -> None:
    await registered(stack, "d")
    second = await stack.another_registry()
    await shown(stack.registry, [("d", WRONG, ELSEWHERE)] * PER_DEVICE_AND_ADDRESS)
    async with asyncio.timeout(PATIENCE_S):
        # Guesses before it reads the counts of the others are counted too.
        while await shown(second, [("d", right("d"), ELSEWHERE)]) != ["RATE_LIMITED"]:
            await asyncio.sleep(0.05)
    assert await shown(second, [("d", right("d"), HOME)]) == [""]
    [(count,)] = stack.database.execute(
        "SELECT failures FROM api_key_failures WHERE device_uuid = 'd' AND address = %s", ELSEWHERE
    )
    assert count == PER_DEVICE_AND_ADDRESS


async def test_guessing_does_not_reveal_which_devices_exist(stack: Stack) -> None:
    await registered(stack, "there")
    found = {}
    for uuid in ("there", "absent"):
        found[uuid] = await shown(stack.registry, [(uuid, WRONG, ELSEWHERE)] * 30)
    assert found["there"] == found["absent"]


async def test_a_restricted_provisioning_key_does_not_reveal_it_either(stack: Stack) -> None:
    await registered(stack, "there")
    made = await stack.admin(
        "POST", "/provisioning-keys", json={"fleet_id": "demo", "uuid_prefix": "mine-"}
    )
    key = made.json()["key"]
    found = {}
    for uuid in ("there", "absent"):
        request = pb.RegisterDevicesRequest(
            registrations=[
                registration(uuid, key, device_api_key=f"{WRONG}{n}", source_address=ELSEWHERE)
                for n in range(30)
            ]
        )
        answer = await stack.registry.registration("RegisterDevices", request)
        found[uuid] = [outcome.error.reason for outcome in answer.outcomes]
        found[uuid] += await shown(stack.registry, [(uuid, WRONG, ELSEWHERE)])
    assert found["there"] == found["absent"]


async def test_guessing_is_logged_and_does_not_fill_the_audit_log(stack: Stack) -> None:
    await stack.register("d")
    for n in range(40):
        await stack.connection("d", f"{WRONG}{n}")
    tried = [(f"u{n % 300}", WRONG, ELSEWHERE) for n in range(900)]
    await shown(stack.registry, tried)
    lines: list[Any] = []
    async with asyncio.timeout(PATIENCE_S):
        while not any(line["actor_id"] == ELSEWHERE for line in lines):
            page = await stack.admin("GET", "/audit-log?limit=500")
            lines = [line for line in page.json()["items"] if line["refusal"]]
            await asyncio.sleep(0.1)
    assert ("device.authenticate", "d", "127.0.0.1", "DEVICE_UNAUTHENTICATED") in {
        (line["action"], line["subject"], line["actor_id"], line["refusal"]) for line in lines
    }
    assert len(lines) < 60
    assert WRONG not in str(lines)
    stored = stack.database.execute("SELECT to_jsonb(f)::text FROM api_key_failures AS f")
    assert stored
    assert WRONG not in str(stored)


async def test_a_device_cannot_rotate_without_limit(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "ROTATIONS_PER_HOUR", 5)
    await stack.register("d")
    answers = [await over_http(stack, "rotate", "d", "test-api-key") for _ in range(12)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 7
    assert answers[-1].json()["reason"] == "RATE_LIMITED"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 5_400
    second = await stack.another_registry()
    assert await shown(second, [("d", "test-api-key", "")], "RotateCredentials") == ["RATE_LIMITED"]
    # It keeps its password, and gets another one when it moves.
    assert (await stack.connection("d")).json()["password"] == answers[4].json()["password"]
    other = await stack.create_broker("Other")
    await stack.admin("PUT", "/devices/d", json={"mqtt_broker_id": other})
    moved = (await stack.connection("d")).json()
    assert moved["password"] != answers[4].json()["password"]
    stack.database.execute("UPDATE devices SET rotations_since = now() - interval '1 hour'")
    assert (await over_http(stack, "rotate", "d", "test-api-key")).status_code == 200
    rows = "SELECT refusal, sum(count) FROM audit_log WHERE action = %s GROUP BY 1 ORDER BY 1"
    async with asyncio.timeout(PATIENCE_S):
        while len(found := stack.database.execute(rows, "device.rotate_credentials")) < 2:
            await asyncio.sleep(0.05)
    assert found[0] == ("", 6)
    assert found[1][0] == "RATE_LIMITED"


LINES = """
SELECT subject, count, (details ->> 'since')::timestamptz = %s::timestamptz,
       (details ->> 'last_at')::timestamptz > at - interval '1 minute', session_role
FROM audit_log WHERE action = 'device.rotate_credentials' AND refusal = '' ORDER BY id
"""


async def test_rotations_do_not_fill_the_audit_log(stack: Stack) -> None:
    engine = engine_of(stack.database.url("mooring_registry"), pool_size=1)
    work = PeriodStore(engine)
    began = "2026-01-01 00:00:00+00"

    async def rotate(uuid: str, times: int) -> None:
        for _ in range(times):
            assert (await over_http(stack, "rotate", uuid, "test-api-key")).status_code == 200

    def is_over(uuid: str) -> None:
        stack.database.execute(
            "UPDATE devices SET rotations_since = %s WHERE uuid = %s", began, uuid
        )

    names = ("again", "ended", "gone", "once", "still")
    for uuid in names:
        await stack.register(uuid)
    for uuid in names:
        await rotate(uuid, 1 if uuid == "once" else 4)
    # The first one of each is written at once.
    first = [(uuid, 1, None, None, "mooring_registry") for uuid in names]
    assert stack.database.execute(LINES, began) == first
    for uuid in names[:-1]:
        is_over(uuid)
    await rotate("again", 1)
    assert (await stack.admin("DELETE", "/devices/gone")).status_code == 204
    assert await work.end_rotations(100) == 1
    assert await work.end_rotations(100) == 0
    later = [
        ("again", 3, True, True, "mooring_registry"),
        ("again", 1, None, None, "mooring_registry"),
        ("gone", 3, True, True, "mooring_registry"),
        ("ended", 3, True, True, "mooring_registry"),
    ]
    found = stack.database.execute(LINES, began)
    # The order of the two lines of a rotation is not defined.
    assert found[:5] == first
    assert sorted(found[5:7], key=str) == sorted(later[:2], key=str)
    assert found[7:] == later[2:]
    # A period that has ended begins anew.
    await rotate("ended", 1)
    await rotate("still", 1)
    assert stack.database.execute(LINES, began)[9:] == [
        ("ended", 1, None, None, "mooring_registry")
    ]
    rows = "SELECT uuid, rotations FROM devices ORDER BY uuid"
    assert stack.database.execute(rows) == [("again", 1), ("ended", 1), ("once", 1), ("still", 5)]
    await engine.dispose()
