"""Guessed registrations, without reading first: a wrong guess is never an answer."""

import asyncio

import pytest
from mooring.broker.v1 import brokers_pb2, resolution_pb2
from prometheus_client import REGISTRY

import registry_service.provisioning.placements
from tests.stack import Stack


async def test_a_key_revoked_meanwhile_makes_no_device(stack: Stack) -> None:
    key = await stack.create_key()
    assert (await stack.register("first", key=key)).status_code == 201
    stack.database.execute("UPDATE provisioning_keys SET is_active = false")
    refused = await stack.register("second", key=key)
    assert (refused.status_code, refused.json()["reason"]) == (401, "PROVISIONING_KEY_REVOKED")
    stack.database.execute(
        "UPDATE provisioning_keys SET is_active = true, expires_at = now() - interval '1 second'"
    )
    refused = await stack.register("third", key=key)
    assert (refused.status_code, refused.json()["reason"]) == (403, "PROVISIONING_KEY_EXPIRED")
    assert stack.database.execute("SELECT uuid FROM devices") == [("first",)]


async def test_a_key_changed_meanwhile_places_devices_by_its_new_values(stack: Stack) -> None:
    other_id = await stack.create_broker("Other", host="other.example.com")
    assert (await stack.register("first")).json()["mqtt"]["source"] == "default"
    stack.database.execute("UPDATE provisioning_keys SET default_broker_id = %s", other_id)
    second = (await stack.register("second")).json()["mqtt"]
    assert (second["source"], second["broker"]) == ("device", "mqtt://other.example.com:1883")
    rows = stack.database.execute("SELECT uuid, mqtt_broker_id, told_broker_ids FROM devices")
    assert sorted(rows) == [
        ("first", None, [stack.default_broker_id]),
        ("second", other_id, [other_id]),
    ]


async def test_a_default_changed_meanwhile_is_answered_and_stored(stack: Stack) -> None:
    await stack.register("first")
    other_id = await stack.create_broker("Other", host="other.example.com")
    await stack.broker.brokers("SetDefaultBroker", brokers_pb2.SetDefaultBrokerRequest(id=other_id))
    second = await stack.register("second")
    assert second.status_code == 201
    assert second.json()["mqtt"]["broker"] == "mqtt://other.example.com:1883"
    told = "SELECT told_broker_ids FROM devices WHERE uuid = 'second'"
    assert stack.database.execute(told) == [([other_id],)]


async def test_a_fleet_restricted_meanwhile_is_respected(stack: Stack) -> None:
    await stack.register("first")
    other_id = await stack.create_broker("Other")
    await stack.admin("PATCH", "/fleets/demo", json={"allowed_broker_ids": [other_id]})
    assert (await stack.register("second")).status_code == 503
    # If there is a row, the device has not been notified of a broker.
    told = "SELECT told_broker_ids FROM devices WHERE uuid = 'second'"
    assert stack.database.execute(told) in ([], [([],)])
    await stack.admin("PATCH", "/fleets/demo", json={"mqtt_broker_id": other_id})
    again = await stack.register("second")
    assert again.status_code in (200, 201)
    assert stack.database.execute(told) == [([other_id],)]


def calls_to_resolve() -> float:
    labels = {"method": "/mooring.broker.v1.ResolutionService/ResolveBrokers", "code": "OK"}
    return REGISTRY.get_sample_value("mooring_rpc_seconds_count", labels) or 0.0


async def test_the_broker_service_is_asked_when_something_changed_and_no_more(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stack.register("first")
    asked = calls_to_resolve()
    for n in range(3):
        assert (await stack.register(f"d{n}")).status_code == 201
        assert (await stack.register(f"d{n}")).status_code == 200
        assert (await stack.connection(f"d{n}")).status_code == 200
    assert calls_to_resolve() == asked

    changes = [
        "UPDATE mqtt_broker_config SET description = 'changed'",
        "UPDATE fleets SET name = 'changed'",
        (
            "INSERT INTO fleet_brokers SELECT fleets.id, broker.id"
            " FROM fleets, mqtt_broker_config AS broker WHERE broker.is_default"
        ),
        (
            "INSERT INTO certificates (name, kind, pem, fingerprint_sha256, subject, issuer,"
            " not_before, not_after) VALUES ('c', 'ca', '', '', '', '', now(), now())"
        ),
    ]
    for n, change in enumerate(changes, start=1):
        stack.database.execute(change)
        assert (await stack.register(f"after-{n}")).status_code == 201
        assert (await stack.register(f"after-{n}")).status_code == 200
        assert calls_to_resolve() == asked + n
    # A statement that changes no row changes nothing.
    stack.database.execute("DELETE FROM certificates WHERE name = 'unused'")
    assert (await stack.register("unchanged")).status_code == 201
    assert calls_to_resolve() == asked + len(changes)

    # A new release of the broker service may decide differently, which the database cannot show.
    monkeypatch.setattr(registry_service.provisioning.placements, "MAX_AGE_S", 0.0)
    assert (await stack.register("later")).status_code == 201
    assert calls_to_resolve() == asked + len(changes) + 1


async def test_new_and_known_devices_in_one_batch(stack: Stack) -> None:
    key = await stack.create_key(max_devices=60)
    await asyncio.gather(*(stack.register(f"d{n}", key=key) for n in range(20)))
    answers = await asyncio.gather(*(stack.register(f"d{n}", key=key) for n in range(80)))
    statuses = [answer.status_code for answer in answers]
    assert statuses[:20] == [200] * 20
    assert sorted(statuses[20:]) == [201] * 40 + [403] * 20
    made = "SELECT count(*), (SELECT max(devices_provisioned) FROM provisioning_keys) FROM devices"
    assert stack.database.execute(made) == [(60, 60)]


async def test_a_device_may_have_the_uuid_null(stack: Stack) -> None:
    for uuid in ("null", "NULL"):
        made = await stack.register(uuid)
        again = await stack.register(uuid)
        assert (made.status_code, again.status_code) == (201, 200)
        assert made.json()["mqtt"]["password"] == again.json()["mqtt"]["password"]
        assert (await stack.connection(uuid)).status_code == 200
        request = resolution_pb2.ResolveBrokerRequest(device_uuid=uuid)
        assert (await stack.broker.resolution("ResolveBroker", request)).resolution.known
