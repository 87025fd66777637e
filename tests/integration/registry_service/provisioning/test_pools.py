"""Devices of pools: homes, fallbacks, failover, regions. Pools are made by SQL here."""

import asyncio
from collections import Counter
from typing import Any

import trustme
from mooring.broker.v1 import resolution_pb2 as pb

from domain.waves import wave_of
from tests.stack import PATIENCE_S, Stack

DEVICES = [f"device-{number}" for number in range(40)]


async def members(stack: Stack, *names: str, **fields: Any) -> list[int]:
    return [await stack.create_broker(name, **fields) for name in names]


def make_pool(stack: Stack, name: str, broker_ids: list[int], **columns: Any) -> int:
    names = ["name", *columns]
    values = ", ".join(["%s"] * len(names))
    query = f"INSERT INTO pools ({', '.join(names)}) VALUES ({values}) RETURNING id"
    [(pool_id,)] = stack.database.execute(query, name, *columns.values())
    for broker_id in broker_ids:
        stack.database.execute(
            "INSERT INTO pool_members (pool_id, broker_id) VALUES (%s, %s)", pool_id, broker_id
        )
    return int(pool_id)


def set_state(stack: Stack, broker_id: int, state: str, **columns: Any) -> None:
    columns = {"state": state, **columns}
    given = ", ".join(f"{name} = excluded.{name}" for name in columns)
    stack.database.execute(
        f"INSERT INTO broker_states (broker_id, {', '.join(columns)})"
        f" VALUES (%s, {', '.join(['%s'] * len(columns))})"
        f" ON CONFLICT (broker_id) DO UPDATE SET {given}",
        broker_id,
        *columns.values(),
    )


async def mqtt_of(stack: Stack, uuid: str, **fields: Any) -> dict[str, Any]:
    answer = await stack.register(uuid, **fields)
    assert answer.status_code in (200, 201), answer.text
    mqtt: dict[str, Any] = answer.json()["mqtt"]
    return mqtt


def hosts_of(mqtt: dict[str, Any]) -> list[str]:
    """The hosts of an answer, the one to use first."""
    configs = [mqtt, *mqtt.get("fallbackBrokers", [])]
    return [each["brokerConfig"]["host"] for each in configs]


async def until(stack: Stack, uuid: str, situation: pb.Situation.ValueType) -> None:
    """Until the broker service has read a change."""
    request = pb.ResolveBrokerRequest(device_uuid=uuid)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await stack.broker.resolution("ResolveBroker", request)
            if answer.resolution.situation == situation:
                return
            await asyncio.sleep(0.01)


async def resolved(stack: Stack, uuid: str) -> pb.ResolveBrokerResponse:
    request = pb.ResolveBrokerRequest(device_uuid=uuid, with_fallbacks=True)
    response: pb.ResolveBrokerResponse = await stack.broker.resolution("ResolveBroker", request)
    return response


def rows(stack: Stack) -> dict[str, Any]:
    query = "SELECT uuid, home_broker_id, told_broker_ids, told_source, xmin::text FROM devices"
    return {uuid: rest for uuid, *rest in stack.database.execute(query)}


async def pooled(stack: Stack) -> list[int]:
    """Three members of the default pool, and all devices registered."""
    broker_ids = [await stack.create_broker(f"m{n}", host=f"m{n}.example") for n in (1, 2, 3)]
    make_pool(stack, "all", broker_ids, is_default=True)
    for uuid in DEVICES:
        await mqtt_of(stack, uuid)
    return broker_ids


async def test_devices_spread_and_both_services_agree(stack: Stack) -> None:
    broker_ids = await pooled(stack)
    found = rows(stack)
    homes = Counter(home for home, *_ in found.values())
    assert set(homes) == set(broker_ids)
    assert min(homes.values()) >= 5
    for uuid in DEVICES:
        mqtt = await mqtt_of(stack, uuid)
        home, told, source, _ = found[uuid]
        assert mqtt["source"] == "default"
        assert source == "default_pool"
        assert told[0] == home
        assert len(told) == 3
        answer = await resolved(stack, uuid)
        assert answer.broker.id == home
        assert [answer.broker.host, *(each.host for each in answer.fallbacks)] == hosts_of(mqtt)
        assert answer.resolution.source == pb.SOURCE_DEFAULT_POOL
    request = pb.ResolveBrokersRequest(
        subjects=[pb.Subject(device_uuid=uuid) for uuid in DEVICES], with_fallbacks=True
    )
    batch = await stack.broker.resolution("ResolveBrokers", request)
    for uuid, outcome in zip(DEVICES, batch.outcomes, strict=True):
        ids = [outcome.resolution.broker_id, *outcome.resolution.fallback_broker_ids]
        assert ids == found[uuid][1]
    # Asking again has written nothing.
    assert rows(stack) == found


async def test_a_member_that_is_down_is_skipped_and_no_row_is_written(stack: Stack) -> None:
    first, *_ = await pooled(stack)
    before = rows(stack)
    set_state(stack, first, "down")
    at_home = [uuid for uuid, (home, *_) in before.items() if home == first]
    await until(stack, at_home[0], pb.SITUATION_FAILOVER)
    for uuid in DEVICES:
        mqtt = await mqtt_of(stack, uuid)
        assert hosts_of(mqtt)[0] != "m1.example"
        assert mqtt.get("situation") == ("failover" if uuid in at_home else None)
        answer = await resolved(stack, uuid)
        assert [answer.broker.host, *(each.host for each in answer.fallbacks)] == hosts_of(mqtt)
    assert rows(stack) == before
    # Half of them may come back, then all.
    set_state(stack, first, "up", returning_percent=50, salt="s")
    back = [uuid for uuid in at_home if wave_of("s", 50, uuid)]
    assert 0 < len(back) < len(at_home)
    await until(stack, back[0], pb.SITUATION_UNSPECIFIED)
    for uuid in at_home:
        is_back = hosts_of(await mqtt_of(stack, uuid))[0] == "m1.example"
        assert is_back == (uuid in back)
    set_state(stack, first, "up", returning_percent=100)
    late = next(uuid for uuid in at_home if uuid not in back)
    await until(stack, late, pb.SITUATION_UNSPECIFIED)
    for uuid in at_home:
        assert hosts_of(await mqtt_of(stack, uuid))[0] == "m1.example"
    assert rows(stack) == before


async def test_a_device_that_is_new_while_a_member_is_down_gets_another_home(stack: Stack) -> None:
    first, *_ = await pooled(stack)
    set_state(stack, first, "down")
    uuid = next(uuid for uuid, (home, *_) in rows(stack).items() if home == first)
    await until(stack, uuid, pb.SITUATION_FAILOVER)
    for number in range(20):
        await mqtt_of(stack, f"new-{number}")
    homes = {home for uuid, (home, *_) in rows(stack).items() if uuid.startswith("new")}
    assert first not in homes


async def test_a_full_pool_passes_new_devices_on(stack: Stack) -> None:
    broker_ids = await pooled(stack)
    before = rows(stack)
    for broker_id in broker_ids:
        set_state(stack, broker_id, "up", is_full=True)
    async with asyncio.timeout(PATIENCE_S):
        number = 0
        while (await mqtt_of(stack, f"new-{number}")).get("brokerConfig", {})[
            "host"
        ] != "localhost":
            number += 1
    home, told, source, _ = rows(stack)[f"new-{number}"]
    assert (home, told, source) == (None, [stack.default_broker_id], "default")
    for uuid in DEVICES[:10]:
        assert (await resolved(stack, uuid)).broker.id == before[uuid][0]
    explained = await stack.admin("GET", f"/devices/new-{number}/broker")
    steps = {step["step"]: step["reason"] for step in explained.json()["steps"]}
    assert steps["default_pool"] == "POOL_IS_FULL"
    assert steps["default"] == "DECIDED"


async def test_a_named_broker_goes_to_its_backup_and_else_stays(stack: Stack) -> None:
    main, backup = await members(stack, "main", "spare")
    stack.database.execute(
        "UPDATE mqtt_broker_config SET backup_broker_id = %s WHERE id = %s", backup, main
    )
    await stack.admin("POST", f"/brokers/{main}/default")
    mqtt = await mqtt_of(stack, "one")
    assert len(mqtt["fallbackBrokers"]) == 1
    before = rows(stack)
    assert before["one"][1] == [main, backup]
    set_state(stack, main, "down")
    await until(stack, "one", pb.SITUATION_FAILOVER)
    assert (await resolved(stack, "one")).broker.id == backup
    assert (await mqtt_of(stack, "one"))["situation"] == "failover"
    set_state(stack, backup, "down")
    await until(stack, "one", pb.SITUATION_DOWN)
    assert (await resolved(stack, "one")).broker.id == main
    answer = await mqtt_of(stack, "one")
    assert answer["situation"] == "down"
    assert answer["refreshAfter"] < mqtt["refreshAfter"]
    assert rows(stack) == before


async def test_regions_decide_and_devices_move_between_them(stack: Stack) -> None:
    berlin, tokyo = [
        await stack.create_broker(name, host=f"{name}.example", region=name)
        for name in ("berlin", "tokyo")
    ]
    pool_id = make_pool(stack, "near", [berlin, tokyo], policy="nearest")
    stack.database.execute(
        "INSERT INTO regions (id, latitude, longitude, pool_id) VALUES"
        " ('berlin', 52.5, 13.4, %s), ('tokyo', 35.7, 139.7, NULL), ('osaka', 34.7, 135.5, NULL)",
        pool_id,
    )
    assert hosts_of(await mqtt_of(stack, "one", region="berlin"))[0] == "berlin.example"
    # Text that is no region is none.
    assert (await mqtt_of(stack, "two", region="atlantis"))["source"] == "default"
    # The nearest region that names something.
    mqtt = await mqtt_of(stack, "three", region="osaka")
    assert mqtt["source"] == "region"
    # Its pool takes the member that is nearest to the device's own region.
    assert hosts_of(mqtt)[0] == "tokyo.example"
    moved = await mqtt_of(stack, "one", region="osaka")
    assert hosts_of(moved)[0] == "tokyo.example"
    assert rows(stack)["one"][0] == tokyo
    assert stack.database.execute("SELECT region FROM devices WHERE uuid = 'one'") == [("osaka",)]
    near = {"latitude": 52.0, "longitude": 13.0}
    again = await mqtt_of(stack, "one", region="osaka", location=near)
    assert hosts_of(again)[0] == "tokyo.example"
    assert (await resolved(stack, "one")).broker.id == tokyo


async def test_a_key_gives_its_devices_a_pool(stack: Stack) -> None:
    broker_ids = await members(stack, "a", "b")
    pool_id = make_pool(stack, "keys", broker_ids)
    stack.database.execute("UPDATE provisioning_keys SET default_pool_id = %s", pool_id)
    mqtt = await mqtt_of(stack, "one")
    assert mqtt["source"] == "device"
    assert stack.database.execute("SELECT pool_id FROM devices") == [(pool_id,)]
    assert (await resolved(stack, "one")).resolution.pool_id == pool_id


def make_ca(stack: Stack, name: str) -> int:
    pem = trustme.CA().cert_pem.bytes().decode()
    [(ca_id,)] = stack.database.execute(
        "INSERT INTO certificates (name, kind, pem, fingerprint_sha256, subject, issuer,"
        " not_before, not_after) VALUES (%s, 'ca', %s, %s, 's', 'i', now(), now() + interval '1 d')"
        " RETURNING id",
        *(name, pem, name),
    )
    return int(ca_id)


async def test_the_certificates_of_fallbacks_are_recorded(stack: Stack) -> None:
    broker_ids = await pooled(stack)
    old_id, new_id = make_ca(stack, "old"), make_ca(stack, "new")
    stack.database.execute(
        "UPDATE mqtt_broker_config SET ca_certificate_id = %s WHERE id = %s", old_id, broker_ids[0]
    )
    query = "SELECT told_ca_ids FROM devices WHERE uuid = %s"
    async with asyncio.timeout(PATIENCE_S):
        for uuid in DEVICES:
            while stack.database.execute(query, uuid) != [([old_id],)]:
                await mqtt_of(stack, uuid)
    # For most devices that broker is only a fallback; a rotation waits for them too.
    stack.database.execute(
        "UPDATE certificates SET replacement_id = %s, rotation_began_at = now(),"
        " rotation_threshold_percent = 100 WHERE id = %s",
        *(new_id, old_id),
    )
    answer = await stack.admin("GET", f"/certificates/{old_id}/rotation")
    assert answer.status_code == 200, answer.text
    assert answer.json()["told"]["old"] == len(DEVICES)
