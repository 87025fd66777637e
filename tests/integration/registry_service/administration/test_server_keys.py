"""A server key is replaced in stages, and retired when it has leaked."""

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mooring.registry.v1 import registration_pb2 as pb
from mooring.registry.v1 import server_keys_pb2, server_keys_pb2_grpc

import gateway.__main__
import registry_service.__main__
import registry_service.provisioning.store
from chassis.database import engine_of, fetched
from chassis.errors import Forbidden
from chassis.trust import Access, Actor
from registry_service.administration.server_keys import store
from registry_service.administration.server_keys.__main__ import KeysConfig, retired
from registry_service.administration.server_keys.__main__ import _key_id as key_id_of
from registry_service.administration.server_keys.store import Usage
from registry_service.credentials import hash_of_password
from tests.integration.registry_service.administration.test_fleet_access import imported, refusal
from tests.integration.registry_service.provisioning.test_batches import (
    reasons,
    register,
    registration,
)
from tests.integration.registry_service.provisioning.test_key_races import owned, waiting
from tests.served import NO_TLS
from tests.stack import Peer, Stack

SECRETS = {1: bytes(32), 2: b"2" * 32}  # 1 is the stack's own
KEYS = "SELECT uuid, credential_key_id FROM devices ORDER BY uuid"


def ring_file(stack: Stack, active: int, *key_ids: int) -> Path:
    """A file with a ring of these keys."""
    file = stack.home / f"ring-{active}-of-{'-'.join(map(str, key_ids))}.json"
    keys = [{"id": n, "secret": base64.b64encode(SECRETS[n]).decode()} for n in key_ids]
    file.write_text(json.dumps({"active": active, "keys": keys}))
    return file


async def replica(stack: Stack, active: int, *key_ids: int, **changes: Any) -> Peer:
    return await stack.another_registry(
        server_keys_file=ring_file(stack, active, *key_ids), **changes
    )


async def asked(peer: Peer, *uuids: str) -> list[pb.Connection | str]:
    """For each device the connection of the answer, or the reason of its error."""
    request = pb.GetConnectionsRequest(
        requests=[pb.ConnectionRequest(uuid=u, device_api_key=f"key-of-{u}") for u in uuids]
    )
    response = await peer.registration("GetConnections", request)
    return [
        outcome.error.reason if outcome.HasField("error") else outcome.connection
        for outcome in response.outcomes
    ]


async def registered(stack: Stack, peer: Peer, *uuids: str) -> list[pb.RegisteredDevice]:
    outcomes = await register(peer, *(registration(u, stack.provisioning_key) for u in uuids))
    assert reasons(outcomes) == ["created"] * len(uuids)
    return [outcome.device for outcome in outcomes]


def accepted(stack: Stack, uuid: str, password: str) -> str:
    """How a broker that asks would accept the password; "" if it would not."""
    [(algorithm, current, salt, previous, previous_salt)] = stack.database.execute(
        "SELECT password_algorithm, mqtt_password_hash, credential_salt, previous_password_hash,"
        " previous_salt FROM devices WHERE uuid = %s",
        uuid,
    )
    if algorithm == "sha256" and hash_of_password(salt, password) == current:
        return "current"
    if previous is not None and hash_of_password(previous_salt, password) == previous:
        return "previous"
    return ""


async def report(peer: Peer) -> dict[int, tuple[bool, bool, int, int]]:
    """For each key: whether it is active, whether it is in the ring, devices, disabled devices."""
    response = await peer.ask(
        server_keys_pb2_grpc.ServerKeyServiceStub,
        "ListServerKeys",
        server_keys_pb2.ListServerKeysRequest(),
    )
    return {
        key.id: (key.is_active, key.is_in_ring, key.devices, key.disabled_devices)
        for key in response.server_keys
    }


async def test_a_key_is_replaced_in_stages(stack: Stack) -> None:
    uuids = ("asks", "comes-again", "rotates", "sleeps", "disabled")
    before = {
        device.uuid: device.connection for device in await registered(stack, stack.registry, *uuids)
    }
    await stack.admin("PATCH", "/devices/disabled", json={"is_active": False})
    await imported(stack, "old")

    # The new key is in the ring, and not active: no device moves.
    known = await replica(stack, 1, 1, 2)
    assert await asked(known, "asks") == [before["asks"]]
    assert await report(known) == {1: (True, True, 4, 1), 2: (False, True, 0, 0)}

    # The new key is active: each device that asks moves to it, in the same pass.
    moved = await replica(stack, 2, 1, 2)
    [asks] = await asked(moved, "asks")
    [again] = await register(moved, registration("comes-again", stack.provisioning_key))
    assert not again.device.created
    request = pb.RotateCredentialsRequest(
        requests=[pb.ConnectionRequest(uuid="rotates", device_api_key="key-of-rotates")]
    )
    [rotates] = (await moved.registration("RotateCredentials", request)).outcomes
    answered = {"asks": asks, "comes-again": again.device.connection, "rotates": rotates.connection}
    for uuid, connection in answered.items():
        assert isinstance(connection, pb.Connection)
        assert connection.password != before[uuid].password
        assert connection.generation != before[uuid].generation
        assert connection.broker_id == before[uuid].broker_id
        assert accepted(stack, uuid, connection.password) == "current"
        assert accepted(stack, uuid, before[uuid].password) == "previous"
    assert await asked(moved, "disabled") == ["DEVICE_DISABLED"]
    assert await asked(moved, *answered) == list(answered.values())
    [new] = await registered(stack, moved, "new")
    assert dict(stack.database.execute(KEYS)) == {
        **dict.fromkeys(("asks", "comes-again", "rotates", "new"), 2),
        **dict.fromkeys(("sleeps", "disabled"), 1),
        "old": None,
    }
    assert await report(moved) == {1: (False, True, 1, 1), 2: (True, True, 4, 0)}

    # The other devices have asked too, so the old key can be removed.
    await stack.admin("PATCH", "/devices/disabled", json={"is_active": True})
    await asked(moved, "sleeps", "disabled")
    assert await report(moved) == {1: (False, True, 0, 0), 2: (True, True, 6, 0)}
    last = await replica(stack, 2, 2)
    assert await report(last) == {2: (True, True, 6, 0)}
    connections = await asked(last, *uuids, "new")
    for uuid, connection in zip((*uuids, "new"), connections, strict=True):
        assert isinstance(connection, pb.Connection)
        assert accepted(stack, uuid, connection.password) == "current"
    assert connections[-1] == new.connection


async def test_a_registry_without_the_key_says_so_and_serves_the_others(stack: Stack) -> None:
    moved = await replica(stack, 2, 1, 2)
    await registered(stack, stack.registry, "here")
    await registered(stack, moved, "there")
    assert await asked(stack.registry, "there", "here", "nobody") == [
        "SERVER_KEY_MISSING",
        *await asked(stack.registry, "here"),
        "DEVICE_UNAUTHENTICATED",
    ]
    failed = await stack.connection("there", "key-of-there")
    assert refusal(failed) == (500, "SERVER_KEY_MISSING")
    assert "does not hold the server key" in failed.json()["detail"]
    again = await stack.register("there", deviceApiKey="key-of-there")
    assert refusal(again) == (500, "SERVER_KEY_MISSING")
    # The device is unchanged.
    [connection] = await asked(moved, "there")
    assert isinstance(connection, pb.Connection)
    assert accepted(stack, "there", connection.password) == "current"


async def test_registries_with_different_active_keys_answer_passwords_that_are_accepted(
    stack: Stack,
) -> None:
    """Their active keys differ while they are restarted one by one."""
    old, new = await replica(stack, 1, 1, 2), await replica(stack, 2, 1, 2)
    [device] = await registered(stack, old, "d")
    last = device.connection.password
    for peer in (new, old, old, new, new):
        [connection] = await asked(peer, "d")
        assert isinstance(connection, pb.Connection)
        assert accepted(stack, "d", connection.password) == "current"
        assert connection.password == last or accepted(stack, "d", last) == "previous"
        last = connection.password
    assert stack.database.execute(KEYS) == [("d", 2)]


async def test_two_registries_that_move_a_device_move_it_once(stack: Stack) -> None:
    await registered(stack, stack.registry, "d")
    peers = [await replica(stack, 2, 1, 2) for _ in range(2)]
    with owned(stack) as connection:
        connection.execute("SELECT 1 FROM devices FOR UPDATE")
        asking = [asyncio.create_task(asked(peer, "d", "d")) for peer in peers]
        coming = asyncio.create_task(register(peers[0], registration("d", stack.provisioning_key)))
        await waiting(stack, 3)
        connection.commit()
    [outcome] = await coming
    passwords = {
        connection.password
        for answer in await asyncio.gather(*asking)
        for connection in answer
        if isinstance(connection, pb.Connection)
    }
    assert passwords == {outcome.device.connection.password}
    assert accepted(stack, "d", passwords.pop()) == "current"


async def test_a_renewal_is_made_with_the_active_key(stack: Stack) -> None:
    await registered(stack, stack.registry, "d")
    await imported(stack, "old")
    await stack.admin("PATCH", "/devices/d", json={"reprovisioning_allowed": True})
    moved = await replica(stack, 2, 1, 2)
    outcomes = await register(
        moved,
        registration("d", stack.provisioning_key, device_api_key="another-key"),
        registration("old", stack.provisioning_key),
    )
    assert reasons(outcomes) == ["created"] * 2
    assert stack.database.execute(KEYS) == [("d", 2), ("old", 2)]


async def test_devices_of_the_active_key_cost_no_more_statements(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []

    async def counted(pool: Any, statement: str, values: Any) -> Any:
        statements.append(statement)
        return await fetched(pool, statement, values)

    monkeypatch.setattr(registry_service.provisioning.store, "fetched", counted)
    await registered(stack, stack.registry, "first")
    statements.clear()
    await registered(stack, stack.registry, "second")
    await registered(stack, stack.registry, "second")
    await asked(stack.registry, "first", "second")
    # The first is a right guess; the second a wrong guess and a reading; the third a reading.
    assert len(statements) == 1 + 2 + 1, statements


async def test_lists_and_the_report_name_devices_that_have_not_moved(stack: Stack) -> None:
    await registered(stack, stack.registry, *(f"d{n}" for n in range(5)))
    moved = await replica(stack, 2, 1, 2)
    await asked(moved, "d1", "d3")
    found = []
    cursor: str | None = ""
    while cursor is not None:
        page = (
            await stack.admin(
                "GET", f"/devices?credential_key_id=1&limit=2&fleet_id=demo&cursor={cursor}"
            )
        ).json()
        found += [device["uuid"] for device in page["items"]]
        cursor = page["next_cursor"]
    assert found == ["d0", "d2", "d4"]
    two = (await stack.admin("GET", "/devices?credential_key_id=2")).json()["items"]
    assert [device["uuid"] for device in two] == ["d1", "d3"]
    assert (await stack.admin("GET", "/devices?credential_key_id=7")).json()["items"] == []
    for wrong in ("-1", "x", "2147483648"):
        answer = await stack.admin("GET", f"/devices?credential_key_id={wrong}")
        assert refusal(answer) == (422, "INVALID_INPUT")

    keys = await stack.admin("GET", "/server-keys")
    assert keys.json() == {
        "items": [
            {
                "id": 1,
                "is_active": True,
                "is_in_ring": True,
                "devices": 3,
                "disabled_devices": 0,
            },
            {
                "id": 2,
                "is_active": False,
                "is_in_ring": False,
                "devices": 2,
                "disabled_devices": 0,
            },
        ],
        "next_cursor": None,
    }
    with pytest.raises(Forbidden):
        await stack.registry.ask(
            server_keys_pb2_grpc.ServerKeyServiceStub,
            "ListServerKeys",
            server_keys_pb2.ListServerKeysRequest(),
            actor=Actor("o", Access.OPERATOR),
        )


@pytest.mark.parametrize(
    "devices",
    [
        {},
        {1: 3},
        {1: 40, 2: 2},
        {1: 2, 2: 40, 3: 39},
        {1: 12, None: 30},
        {1: 9, 2: 9, 3: 9, None: 9},
    ],
)
async def test_devices_of_keys_are_counted_exactly(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, devices: dict[int | None, int]
) -> None:
    """With any distribution, also if few are counted before the largest key is known."""
    monkeypatch.setattr(store, "FIRST_LIMIT", 2)
    for key_id, number in devices.items():
        stack.database.execute(
            "INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_username,"
            " mqtt_password_hash, credential_salt, credential_key_id, api_key_hash,"
            " provisioned_by_key_id, provisioned_at, is_active)"
            " SELECT given || '-' || n, 'name', 'type', 'demo', given || '-' || n, '', 'salt',"
            " provisioned.key_id, provisioned.hash, provisioned.id, provisioned.at, n %% 3 <> 0"
            " FROM generate_series(1, %s) AS n, (SELECT %s::text AS given) AS of_key"
            " LEFT JOIN LATERAL (SELECT nullif(given, '')::integer AS key_id, ''::bytea AS hash,"
            " id, now() AS at FROM provisioning_keys LIMIT 1) AS provisioned ON given <> ''",
            number,
            "" if key_id is None else str(key_id),
        )
    counted = {
        key_id: Usage(number - number // 3, number // 3)
        for key_id, number in devices.items()
        if key_id is not None
    }
    engine = engine_of(stack.database.url("mooring_registry"), pool_size=1)
    try:
        assert await store.ServerKeyStore(engine).usage() == counted
    finally:
        await engine.dispose()


def test_devices_of_a_key_are_found_by_an_index(database: Any) -> None:
    plan = database.execute(
        "EXPLAIN SELECT id FROM devices WHERE credential_key_id = 1 AND id > 5 ORDER BY id LIMIT 9"
    )
    assert "devices_server_key" in str(plan)
    assert "Sort" not in str(plan)


async def command(stack: Stack, ring: Path, *arguments: str) -> tuple[int, str]:
    """Runs the command for server keys; returns its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "registry_service.administration.server_keys", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            **os.environ,
            "DATABASE_URL": stack.database.url("mooring_registry"),
            "SERVER_KEYS_FILE": str(ring),
            "LOG_LEVEL": "error",
        },
    )
    printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode()


def config_of(stack: Stack, ring: Path) -> KeysConfig:
    return KeysConfig(database_url=stack.database.url("mooring_registry"), server_keys_file=ring)


async def test_a_leaked_key_is_retired(stack: Stack) -> None:
    stack.database.execute(
        "UPDATE mqtt_broker_config SET management = 'mosquitto', username = 'u',"
        " password_encrypted = '\\x00'"
    )
    uuids = ("moved", "one", "two", "off")
    before = {
        device.uuid: device.connection.password
        for device in await registered(stack, stack.registry, *uuids)
    }
    await imported(stack, "old")
    await stack.admin("PATCH", "/devices/off", json={"is_active": False})
    ring = ring_file(stack, 2, 1, 2)
    moved = await replica(stack, 2, 1, 2)
    [connection] = await asked(moved, "moved")
    assert isinstance(connection, pb.Connection)
    assert accepted(stack, "moved", before["moved"]) == "previous"
    stack.database.execute("DELETE FROM revocations")
    stack.database.execute("DELETE FROM access_changes")

    status, printed = await command(stack, ring, "retire", "--key", "1")
    assert status == 0, printed
    assert printed.splitlines() == [
        "3 passwords that key 1 has made were ended",
        "1 previous passwords are not accepted any more",
        "3 devices still need the key to prove their identity: leave it in the ring",
    ]
    # No password that the key has made is accepted; a device that moved before is not affected.
    for uuid, password in before.items():
        assert accepted(stack, uuid, password) == ""
    assert accepted(stack, "moved", connection.password) == "current"
    users = stack.database.execute("SELECT username FROM mqtt_users ORDER BY 1")
    assert users == [("device_moved",), ("old",)]
    # Managed brokers end the sessions, and access listeners drop their cached entries.
    ended = stack.database.execute("SELECT username FROM revocations ORDER BY 1")
    assert ended == [("device_moved",), ("device_one",), ("device_two",)]
    forgotten = stack.database.execute("SELECT unnest(usernames) FROM access_changes ORDER BY 1")
    assert {name for (name,) in forgotten} == {f"device_{uuid}" for uuid in uuids}

    # Devices authenticate as before, and get passwords of the new key.
    assert await asked(moved, "off") == ["DEVICE_DISABLED"]
    [one] = await asked(moved, "one")
    [two] = await register(moved, registration("two", stack.provisioning_key))
    assert isinstance(one, pb.Connection)
    for uuid, password in (("one", one.password), ("two", two.device.connection.password)):
        assert accepted(stack, uuid, password) == "current"
        assert accepted(stack, uuid, before[uuid]) == ""
    assert await report(moved) == {1: (False, True, 0, 1), 2: (True, True, 3, 0)}

    status, printed = await command(stack, ring, "retire", "--key", "1")
    assert (status, printed.splitlines()) == (
        0,
        [
            "0 passwords that key 1 has made were ended",
            "1 devices still need the key to prove their identity: leave it in the ring",
        ],
    )
    status, printed = await command(stack, ring_file(stack, 2, 2), "retire", "--key", "1")
    assert (
        "1 devices can prove their identity only with the key, which is not in the ring" in printed
    )
    lines = (await stack.admin("GET", "/audit-log?action=server_key.retire")).json()["items"]
    assert [(line["actor"], line["subject"], line["after"]) for line in lines] == [
        (
            "registry_service.administration.server_keys",
            "1",
            {"devices": 3, "previous_passwords": 1},
        )
    ]


async def test_the_active_key_cannot_be_retired(stack: Stack) -> None:
    [device] = await registered(stack, stack.registry, "d")
    status, printed = await command(stack, stack.keys_file, "retire", "--key", "1")
    assert status != 0
    assert "key 1 is the active one: make another one active" in printed
    assert accepted(stack, "d", device.connection.password) == "current"
    for arguments in ([], ["retire"], ["retire", "--key", "one"], ["remove", "--key", "1"]):
        with pytest.raises(SystemExit) as ended:
            key_id_of(arguments)
        assert ended.value.code == 2


async def test_a_key_is_retired_a_piece_at_a_time_while_devices_come(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "WINDOW", 7)
    uuids = [f"d{n}" for n in range(30)]
    devices = await registered(stack, stack.registry, *uuids)
    before = {device.uuid: device.connection.password for device in devices}
    moved = await replica(stack, 2, 1, 2)
    config = config_of(stack, ring_file(stack, 2, 1, 2))
    answers, status = await asyncio.gather(
        asyncio.gather(*(asked(moved, uuid) for uuid in uuids[::2])), retired(config, 1)
    )
    assert status == 0
    for uuid in uuids:
        assert accepted(stack, uuid, before[uuid]) == ""
    for uuid, [connection] in zip(uuids[::2], answers, strict=True):
        assert isinstance(connection, pb.Connection)
        assert accepted(stack, uuid, connection.password) == "current"
    assert "passwords that key 1 has made were ended" in capsys.readouterr().out


async def test_a_registry_that_still_uses_the_retired_key_is_reported(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await registered(stack, stack.registry, "d")
    used = store.ServerKeyStore
    left = used.passwords_left

    async def counted(self: Any, key_id: int) -> int:
        # Meanwhile a registry that was not restarted answers with the old key.
        await asked(stack.registry, "d")
        return await left(self, key_id)

    monkeypatch.setattr(used, "passwords_left", counted)
    assert await retired(config_of(stack, ring_file(stack, 2, 1, 2)), 1) == 1
    assert "it is still the active key of a registry service" in capsys.readouterr().out
    # The password that this registry answers is accepted.
    [connection] = await asked(stack.registry, "d")
    assert isinstance(connection, pb.Connection)
    assert accepted(stack, "d", connection.password) == "current"


@contextlib.asynccontextmanager
async def over_http(stack: Stack, ring: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A gateway whose registry has another ring."""
    async with contextlib.AsyncExitStack() as exits:
        port = await exits.enter_async_context(
            registry_service.__main__.running(stack.registry_config(server_keys_file=ring))
        )
        config = stack.gateway_config(registry_service_address=f"127.0.0.1:{port}")
        url = await exits.enter_async_context(gateway.__main__.running(config))
        yield await exits.enter_async_context(httpx2.AsyncClient(base_url=url, verify=NO_TLS))


async def test_a_device_that_knows_its_answer_gets_the_password_of_the_new_key(
    stack: Stack,
) -> None:
    first = (await stack.register("d")).json()["mqtt"]
    tag = (await stack.connection("d")).headers["etag"]
    async with over_http(stack, ring_file(stack, 2, 1, 2)) as http:
        headers = {"Authorization": "Bearer test-api-key", "If-None-Match": tag}
        answer = await http.get("/api/v1/device/d/mqtt", headers=headers)
        assert answer.status_code == 200
        assert answer.json()["password"] != first["password"]
        headers["If-None-Match"] = answer.headers["etag"]
        assert (await http.get("/api/v1/device/d/mqtt", headers=headers)).status_code == 304
