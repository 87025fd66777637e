"""Concurrent changes: each holds what it promises, and none ends in an internal error."""

import asyncio
import base64
import json
from collections import Counter
from typing import Any

import psycopg
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.field_mask_pb2 import FieldMask
from mooring.broker.v1 import brokers_pb2, resolution_pb2
from mooring.registry.v1 import fleets_pb2, registration_pb2_grpc
from mooring.registry.v1 import registration_pb2 as pb

from broker_service.placements.snapshot import SnapshotKeeper
from broker_service.placements.store import Reading
from broker_service.resolution import Directory
from chassis.errors import DeadlineExceeded, InvalidInput
from chassis.listening import Listener
from chassis.process import background
from registry_service.administration.tokens.token_cache import TokenCache
from registry_service.provisioning.placements import DevicePlacement, Placements
from tests.integration.registry_service.provisioning.test_batches import register, registration
from tests.stack import Stack


class SlowStore:
    """A store whose readings end when the test permits it."""

    def __init__(self) -> None:
        self.begun = 0
        self.permits = asyncio.Semaphore(0)

    async def read(self, since: str = "", known: object = None) -> Reading:
        self.begun += 1
        await self.permits.acquire()
        return Reading(Directory({}, {}), [], "a version")

    async def valid_tokens(self) -> list[Any]:
        self.begun += 1
        await self.permits.acquire()
        return []


class SilentHealth:
    async def say(self, name: str, *, is_serving: bool) -> None:
        return None


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_cancelled_reading_is_not_shared() -> None:
    store: Any = SlowStore()
    health: Any = SilentHealth()
    snapshots = SnapshotKeeper(store, Listener("", "", []), health)
    first, second, third = (asyncio.create_task(snapshots.refresh()) for _ in range(3))
    await turns()
    store.permits.release()
    await first
    await turns()
    assert store.begun == 2
    second.cancel()
    await asyncio.wait([second])
    await turns()
    assert store.begun == 3
    assert not third.done()
    store.permits.release()
    await third
    assert store.begun == 3


async def test_concurrent_callers_share_a_reading() -> None:
    store: Any = SlowStore()
    health: Any = SilentHealth()
    snapshots = SnapshotKeeper(store, Listener("", "", []), health)
    tasks = [asyncio.create_task(snapshots.refresh()) for _ in range(10)]
    await turns()
    store.permits.release()
    store.permits.release()
    await asyncio.gather(*tasks)
    assert store.begun == 2


async def test_readings_of_tokens_take_turns() -> None:
    """A reading from before a revocation cannot end after one from after it."""
    store: Any = SlowStore()
    cache = TokenCache(store, Listener("", "", []))
    tasks = [asyncio.create_task(cache.refresh()) for _ in range(3)]
    await turns()
    assert store.begun == 1
    store.permits.release()
    store.permits.release()
    await asyncio.gather(*tasks)
    assert store.begun == 2


async def test_a_reading_is_restarted_twice_at_most(stack: Stack) -> None:
    """The number of times that the listening connection is replaced does not matter."""
    listener = Listener(stack.database.url("mooring_broker"), "anything", [])
    store: Any = SlowStore()
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'mooring listener' AND usename = 'mooring_broker'"
    )
    async with asyncio.timeout(20), background(listener.run()):
        while not listener.is_listening:
            await asyncio.sleep(0.01)
        task = asyncio.create_task(listener.reading(store.read))
        for _ in range(4):
            before = listener.connections
            stack.database.execute(end, role="mooring_broker")
            while listener.connections == before or not listener.is_listening:
                await asyncio.sleep(0.01)
        assert store.begun == 3
        store.permits.release()
        assert (await task).version == "a version"


async def test_concurrent_changes_of_a_broker_leave_a_valid_one(stack: Stack) -> None:
    for n in range(10):
        broker_id = await stack.create_broker(f"b{n}", protocol="ws")
        path = f"/brokers/{broker_id}"
        answers = await asyncio.gather(
            stack.admin("PATCH", path, json={"protocol": "mqtt"}),
            stack.admin("PATCH", path, json={"path": "/mqtt"}),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 422]


async def test_a_default_set_by_sql_meanwhile_is_a_lost_race(stack: Stack) -> None:
    second, third = await stack.create_broker("two"), await stack.create_broker("three")
    with psycopg.connect(stack.database.url("mooring_operator")) as connection:
        connection.execute("UPDATE mqtt_broker_config SET is_default = false WHERE is_default")
        connection.execute(
            "UPDATE mqtt_broker_config SET is_default = true WHERE id = %s", [second]
        )
        swap = asyncio.create_task(stack.admin("POST", f"/brokers/{third}/default"))
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
        async with asyncio.timeout(5):
            while not stack.database.execute(waiting):
                await asyncio.sleep(0.01)
        connection.commit()
    lost = await swap
    assert (lost.status_code, lost.json()["reason"]) == (412, "LOST_RACE")
    defaults = stack.database.execute("SELECT id FROM mqtt_broker_config WHERE is_default")
    assert defaults == [(second,)]


INVENTED: list[tuple[str, Any]] = [
    ("/fleets", "\ud800"),
    ("/fleets", "\0"),
    ("/provisioning-keys", "no-uuid"),
    ("/brokers", 2**32),
    ("/brokers", -1),
    ("/devices", 2**63),
    ("/devices", True),
    ("/devices", "1"),
]


async def test_an_invented_cursor_is_the_callers_fault(stack: Stack) -> None:
    for path, key in INVENTED:
        cursor = base64.urlsafe_b64encode(json.dumps(key).encode()).decode()
        refused = await stack.admin("GET", path, params={"cursor": cursor})
        assert (refused.status_code, refused.json()["field"]) == (422, "cursor"), (path, key)


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"),  # version 6
        (b"\x06\x03\x55\x1d\x0e", b"\x06\x03\x55\x1d\x0f"),  # the same extension twice
    ],
)
async def test_an_unreadable_certificate_is_the_callers_fault(
    stack: Stack, there: bytes, instead: bytes
) -> None:
    certificate = x509.load_pem_x509_certificate(trustme.CA().cert_pem.bytes())
    der = certificate.public_bytes(Encoding.DER)
    assert there in der
    body = base64.encodebytes(der.replace(there, instead, 1)).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
    refused = await stack.admin(
        "POST", "/brokers", json={"name": "x", "host": "h", "port": 1, "ca_cert": pem}
    )
    assert (refused.status_code, refused.json()["field"]) == (422, "ca_cert")


async def test_an_unknown_field_in_the_mask_is_the_callers_fault(stack: Stack) -> None:
    for path in ("é", "a\nb", "is_default", ""):
        request = brokers_pb2.UpdateBrokerRequest(
            id=stack.default_broker_id, update_mask=FieldMask(paths=[path])
        )
        with pytest.raises(InvalidInput) as refused:
            await stack.broker.brokers("UpdateBroker", request)
        assert refused.value.field == "update_mask"


async def test_answers_in_different_orders_do_not_deadlock(stack: Stack) -> None:
    registries = [stack.registry, await stack.another_registry()]
    uuids = [f"d{n:03}" for n in range(300)]
    await register(stack.registry, *(registration(uuid, stack.provisioning_key) for uuid in uuids))
    requests = [pb.ConnectionRequest(uuid=uuid, device_api_key=f"key-of-{uuid}") for uuid in uuids]
    outcomes: Counter[str | None] = Counter()

    async def ask(n: int) -> None:
        ordered = requests[:: 1 if n % 2 else -1]
        answer = await registries[n % 2].registration(
            "GetConnections", pb.GetConnectionsRequest(requests=ordered)
        )
        outcomes.update(outcome.WhichOneof("outcome") for outcome in answer.outcomes)

    for _ in range(10):
        stack.database.execute("UPDATE devices SET told_broker_ids = '{99}'")
        await asyncio.gather(*(ask(n) for n in range(4)))
    assert outcomes == {"connection": 10 * 4 * 300}
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert stack.database.execute(deadlocks) == [(0,)]


async def test_a_caller_without_time_gets_no_stopgap(stack: Stack) -> None:
    """The error says nothing about the state of the broker service."""
    loop = asyncio.get_running_loop()
    placements = Placements(stack.broker, timeout_s=2)
    unplaced = DevicePlacement(None, "demo", "", fleet_has_rule=False, fleet_revision=0)
    with pytest.raises(DeadlineExceeded):
        await placements.resolve([unplaced], "a version", loop.time() + 0.04)


async def test_an_answer_after_the_deadline_is_not_noted_as_notified(stack: Stack) -> None:
    await stack.register("one")
    notified = stack.database.execute("SELECT told_broker_ids, told_at FROM devices")
    fresh = await stack.another_registry()
    method = registration_pb2_grpc.RegistrationServiceStub(fresh.channel).GetConnections
    request = pb.ConnectionRequest(uuid="one", device_api_key="test-api-key")
    with psycopg.connect(stack.database.url("mooring")) as connection:
        connection.execute("LOCK TABLE devices IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DeadlineExceeded):
            await fresh.call(
                method,
                pb.GetConnectionsRequest(requests=[request]),
                deadline=asyncio.get_running_loop().time() + 0.5,
            )
    assert (await stack.connection("one")).status_code == 200
    assert stack.database.execute("SELECT told_broker_ids, told_at FROM devices") == notified


async def test_a_restriction_holds_from_the_moment_it_is_acknowledged(stack: Stack) -> None:
    own = await stack.create_broker("own")
    allowed = fleets_pb2.AllowedBrokers(broker_ids=[own])
    fields = fleets_pb2.FleetFields(allowed_brokers=allowed, mqtt_broker_id=own)
    mask = FieldMask(paths=["allowed_brokers", "mqtt_broker_id"])
    for n in range(20):
        await stack.create_fleet(f"f{n}")
        await stack.register(f"d{n}", key=await stack.create_key(fleet_id=f"f{n}"))
        await stack.registry.fleets(
            "UpdateFleet",
            fleets_pb2.UpdateFleetRequest(id=f"f{n}", fields=fields, update_mask=mask),
        )
        answer = await stack.broker.resolution(
            "ResolveBroker", resolution_pb2.ResolveBrokerRequest(device_uuid=f"d{n}")
        )
        assert answer.resolution.broker_id == own
        assert (await stack.connection(f"d{n}")).json()["source"] == "fleet"


async def test_brokers_are_read_without_a_listening_connection(stack: Stack) -> None:
    """The pool keeps its connection; the listening one is ended, and cannot be opened again."""
    with psycopg.connect(stack.database.server.superuser_url(), autocommit=True) as connection:
        connection.execute("ALTER ROLE mooring_broker CONNECTION LIMIT 1")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'mooring_broker' AND application_name = 'mooring listener'"
        )
        try:
            async with asyncio.timeout(10):
                while await stack.broker.is_serving("database"):
                    await asyncio.sleep(0.02)
            stack.database.execute("UPDATE mqtt_broker_config SET host = 'moved.example.com'")
            async with asyncio.timeout(10):
                while "moved" not in (await stack.register("one")).json()["mqtt"]["broker"]:
                    await asyncio.sleep(0.02)
            # Without the database's proof, an answer is marked as stale.
            request = resolution_pb2.ResolveBrokerRequest(device_uuid="one")
            answer = await stack.broker.resolution("ResolveBroker", request)
            assert answer.resolution.stale
        finally:
            connection.execute("ALTER ROLE mooring_broker CONNECTION LIMIT -1")


async def test_a_key_of_another_fleet_does_not_take_a_device_over(stack: Stack) -> None:
    await stack.create_fleet("tenant-b")
    theirs = await stack.create_key(fleet_id="tenant-b")
    ours = await stack.create_key(max_devices=1)
    await stack.register("one")
    await stack.admin("PATCH", "/devices/one", json={"reprovisioning_allowed": True})
    refused = await stack.register("one", key=theirs, deviceApiKey="thief-api-key")
    assert (refused.status_code, refused.json()["reason"]) == (409, "DEVICE_TAKEN")

    # With a key of its own fleet the device is provisioned anew, and belongs to that key.
    assert (await stack.register("one", key=ours, deviceApiKey="new-api-key")).status_code == 200
    assert (await stack.register("two", key=ours)).status_code == 201
    assert (await stack.register("one", key=ours, deviceApiKey="new-api-key")).status_code == 200


async def test_a_refused_row_is_not_quoted_in_the_log(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    stack.database.execute("ALTER TABLE devices ADD CHECK (device_name <> 'poison')")
    refused = await stack.register("one", deviceName="poison")
    assert refused.json()["reason"] == "REFUSED_VALUES"
    text = "".join(str(record.msg) for record in caplog.records)
    assert "Failing row" not in text


async def test_a_missing_server_key_is_logged_for_the_operator(
    stack: Stack, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    await stack.register("one")
    stack.database.execute("UPDATE devices SET credential_key_id = 7")
    failed = await stack.register("one")
    assert (failed.status_code, failed.json()["reason"]) == (500, "SERVER_KEY_MISSING")
    assert "7" not in failed.json()["detail"]
    said = capsys.readouterr().out + "".join(str(record.msg) for record in caplog.records)
    assert "a server key is missing from the ring" in said


async def test_a_busy_pool_does_not_count_as_an_unavailable_database(stack: Stack) -> None:
    await stack.register("one")
    with psycopg.connect(stack.database.url("mooring")) as connection:
        connection.execute("SELECT 1 FROM devices FOR UPDATE")
        edits = [
            asyncio.create_task(stack.admin("PUT", "/devices/one", json={"device_name": f"n{n}"}))
            for n in range(40)
        ]
        async with asyncio.timeout(10):
            while not all(edit.done() for edit in edits):
                assert (await stack.http.get("/readyz")).status_code == 200
                await asyncio.sleep(0.05)
    assert {edit.result().status_code for edit in edits} == {503}
