"""Concurrent changes of brokers: revisions, the default, deletions; and filtered lists."""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx2
import psycopg
import pytest
from mooring.broker.v1 import brokers_pb2

from broker_service.encryption import EncryptionKeys, place_of
from chassis.errors import Conflict
from tests.integration.broker_service.brokers.test_brokers import (
    NEW,
    WRONG,
    created,
    expired_ca,
)
from tests.pools import make_pool
from tests.stack import Stack
from tests.stored import Stored


async def asked(
    stack: Stack, method: str, path: str, *conditions: tuple[str, str], **options: Any
) -> httpx2.Response:
    headers = [("Authorization", f"Bearer {stack.admin_token}"), *conditions]
    return await stack.http.request(method, f"/api/v1{path}", headers=headers, **options)


async def test_of_several_changes_of_one_revision_one_wins(stack: Stack) -> None:
    broker = await created(stack)
    path = f"/brokers/{broker['id']}"
    for port in range(1000, 1050, 10):
        tag = (await stack.admin("GET", path)).headers["etag"]
        answers = await asyncio.gather(
            *(
                asked(stack, "PATCH", path, ("If-Match", tag), json={"port": port + n})
                for n in range(6)
            )
        )
        assert Counter(answer.status_code for answer in answers) == {200: 1, 412: 5}
        lost = next(answer for answer in answers if answer.status_code == 412)
        assert lost.json()["reason"] == "LOST_RACE"
        won = next(answer for answer in answers if answer.status_code == 200)
        broker = (await stack.admin("GET", path)).json()
        assert broker == won.json()
        assert won.headers["etag"] == f'"{broker["revision"]}"' != tag


@pytest.mark.parametrize(
    ("values", "passes"),
    [
        ([], True),
        (["*"], True),
        (['"1"'], True),
        (['"7", "1"'], True),
        (['"7"', '"1"'], True),
        (['W/"1"'], False),
        (['W/"1", "2"'], False),
        (['"2"'], False),
        (['"one"'], False),
        (["1"], False),
        ([""], False),
        (['"99999999999999999999"'], False),
        (['"0"'], False),
    ],
)
async def test_if_match_is_that_of_rfc_9110(stack: Stack, values: list[str], passes: bool) -> None:
    broker = await created(stack)
    path = f"/brokers/{broker['id']}"
    conditions = [("If-Match", value) for value in values]
    expected = 200 if passes else 412
    for method, where, body in (
        ("PATCH", path, {"port": broker["port"]}),
        ("POST", f"{path}/rollback", {"revision": 1}),
        ("POST", f"{path}/default", None),
    ):
        answer = await asked(stack, method, where, *conditions, json=body)
        assert answer.status_code == expected, (method, where, answer.text)
    if not passes:
        assert (await asked(stack, "DELETE", path, *conditions)).status_code == 412
        assert (await stack.admin("GET", path)).json() == broker
    gone = await asked(stack, "PATCH", "/brokers/9999", *conditions, json={})
    assert gone.status_code == 404


async def test_a_known_broker_is_answered_with_not_modified(stack: Stack) -> None:
    path = f"/brokers/{stack.default_broker_id}"
    first = await stack.admin("GET", path)
    tag = first.headers["etag"]
    for value in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        known = await asked(stack, "GET", path, ("If-None-Match", value))
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    await stack.admin("PATCH", path, json={"port": 7})
    assert (await asked(stack, "GET", path, ("If-None-Match", tag))).json()["port"] == 7


async def test_the_database_keeps_one_default_however_many_are_set_at_once(stack: Stack) -> None:
    ids = [await stack.create_broker(f"b{n}") for n in range(6)]
    defaults = "SELECT id FROM mqtt_broker_config WHERE is_default"
    for _ in range(5):
        answers = await asyncio.gather(
            *(stack.admin("POST", f"/brokers/{broker_id}/default") for broker_id in ids)
        )
        assert {answer.status_code for answer in answers} == {200}
        ((default,),) = stack.database.execute(defaults)
        listed = await stack.admin("GET", "/brokers", params={"is_default": True})
        assert [item["id"] for item in listed.json()["items"]] == [default]


async def test_a_default_cannot_be_lost_while_it_is_made(stack: Stack) -> None:
    for n in range(8):
        broker_id = await stack.create_broker(f"b{n}")
        path = f"/brokers/{broker_id}"
        made, deleted, stopped = await asyncio.gather(
            stack.admin("POST", f"{path}/default"),
            stack.admin("DELETE", path),
            stack.admin("PATCH", path, json={"is_active": False}),
        )
        assert made.status_code in (200, 404, 409)
        assert deleted.status_code in (204, 409)
        assert stopped.status_code in (200, 404, 409)
        assert (made.status_code == 200) != (deleted.status_code == 204)
        rows = stack.database.execute("SELECT is_active FROM mqtt_broker_config WHERE is_default")
        assert rows == [(True,)]


async def test_the_refusal_to_delete_counts_what_uses_the_broker(stack: Stack) -> None:
    broker_id = await stack.create_broker("Used")
    await stack.create_fleet("ruled", mqtt_broker_id=broker_id)
    await stack.admin(
        "POST", "/fleets", json={"id": "limited", "name": "l", "allowed_broker_ids": [broker_id]}
    )
    await stack.admin("PUT", "/fleets/demo/rollout", json={"broker_id": broker_id, "percent": 1})
    await stack.create_key(default_broker_id=broker_id)
    expected = {"uuid": "later", "fleet_id": "demo", "mqtt_broker_id": broker_id}
    await stack.admin("POST", "/expected-devices", json=expected)
    for n in range(3):
        await stack.register(f"d{n}")
        await stack.admin("PUT", f"/devices/d{n}", json={"mqtt_broker_id": broker_id})
    await stack.create_broker("Backed", backup_broker_id=broker_id)
    insert = "INSERT INTO regions (id, mqtt_broker_id) VALUES ('eu', %s)"
    stack.database.execute(insert, broker_id)
    make_pool(stack, broker_id)
    refused = await stack.admin("DELETE", f"/brokers/{broker_id}")
    problem = refused.json()
    usage = {"devices": 3, "fleets": 1, "keys": 1, "allowances": 1, "expected_devices": 1}
    usage |= {"rollouts": 1, "regions": 1, "pools": 1, "backups": 1}
    assert (refused.status_code, problem["reason"], problem["usage"]) == (
        *(409, "BROKER_IN_USE"),
        usage,
    )
    assert (
        "3 devices, 1 fleet, 1 key, 1 allowance, 1 expected device, 1 rollout, 1 region, 1 pool,"
        " 1 backup" in problem["detail"]
    )
    assert (await stack.admin("GET", f"/brokers/{broker_id}/usage")).json() == usage
    with pytest.raises(Conflict) as conflict:
        await stack.broker.brokers("DeleteBroker", brokers_pb2.DeleteBrokerRequest(id=broker_id))
    assert conflict.value.usage == usage
    missing = await stack.admin("GET", "/brokers/9999/usage")
    assert (missing.status_code, missing.json()["reason"]) == (404, "BROKER_NOT_FOUND")


async def test_a_pin_set_while_a_broker_is_deleted_is_counted_or_refused(stack: Stack) -> None:
    await stack.register("d")
    for n in range(8):
        broker_id = await stack.create_broker(f"b{n}")
        deleted, pinned = await asyncio.gather(
            stack.admin("DELETE", f"/brokers/{broker_id}"),
            stack.admin("PUT", "/devices/d", json={"mqtt_broker_id": broker_id}),
        )
        if deleted.status_code == 204:
            assert (pinned.status_code, pinned.json()["reason"]) == (422, "BROKER_UNKNOWN")
        else:
            assert (deleted.status_code, pinned.status_code) == (409, 200)
            assert deleted.json()["usage"]["devices"] == 1


async def test_a_deletion_waits_for_an_uncommitted_pin(stack: Stack) -> None:
    """The trigger cannot see the pin, so the foreign key refuses; then the pin is counted."""
    await stack.register("d")
    broker_id = await stack.create_broker("b")
    with psycopg.connect(stack.database.url("mooring")) as connection:
        connection.execute("UPDATE devices SET mqtt_broker_id = %s", [broker_id])
        deleting = asyncio.create_task(stack.admin("DELETE", f"/brokers/{broker_id}"))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        async with asyncio.timeout(10):
            while not stack.database.execute(waiting)[0][0]:
                await asyncio.sleep(0.01)
        connection.commit()
    refused = await deleting
    assert (refused.status_code, refused.json()["usage"]["devices"]) == (409, 1)


async def test_a_value_that_sql_set_does_not_prevent_other_changes(stack: Stack) -> None:
    broker = await created(stack, protocol="wss")
    with psycopg.connect(stack.database.url("mooring_operator")) as sql:
        sql.execute("UPDATE mqtt_broker_config SET path = '/a b' WHERE id = %s", (broker["id"],))
    path = f"/brokers/{broker['id']}"
    for change in ({"port": 7}, {"path": "/a b", "keep_alive": 7}, {"path": "/mqtt"}):
        changed = await asked(stack, "PATCH", path, json=change)
        assert changed.status_code == 200, changed.text
    refused = await asked(stack, "PATCH", path, json={"path": "/a b"})
    assert refused.status_code == 422


async def test_lists_are_filtered(stack: Stack) -> None:
    await created(stack, name="Berlin 1", region="eu", labels={"site": "berlin", "tier": "a"})
    await created(stack, name="Berlin 2", region="eu", labels={"site": "berlin"}, is_active=False)
    await created(stack, name="100%_Boston", region="us", protocol="wss", labels={"site": "boston"})

    async def names(*query: tuple[str, Any]) -> list[str]:
        found: list[str] = []
        cursor: str | None = None
        while True:
            more = [("cursor", cursor)] if cursor else []
            answer = await stack.admin("GET", "/brokers", params=[*query, ("limit", 1), *more])
            assert answer.status_code == 200, answer.text
            found += [item["name"] for item in answer.json()["items"]]
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                return found

    assert await names(("region", "eu")) == ["Berlin 1", "Berlin 2"]
    assert await names(("region", "")) == ["Local Broker"]
    assert await names(("is_active", "false")) == ["Berlin 2"]
    assert await names(("is_active", "true"), ("region", "eu")) == ["Berlin 1"]
    assert await names(("is_default", "true")) == ["Local Broker"]
    assert await names(("protocol", "wss")) == ["100%_Boston"]
    assert await names(("label", "site=berlin")) == ["Berlin 1", "Berlin 2"]
    assert await names(("label", "site=berlin"), ("label", "tier=a")) == ["Berlin 1"]
    assert await names(("label", "site=")) == []
    assert await names(("name", "BERLIN")) == ["Berlin 1", "Berlin 2"]
    assert await names(("name", "%_")) == ["100%_Boston"]
    for field, value in (
        *(("label", "site"), ("label", "=x"), ("label", "a\0=x"), ("label", "a=\0")),
        *(("region", "\0"), ("name", "\0"), ("protocol", "http"), ("is_active", "perhaps")),
    ):
        refused = await stack.admin("GET", "/brokers", params=[(field, value)])
        assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text


async def test_a_password_is_kept_encrypted_for_its_broker_alone(stack: Stack) -> None:
    broker = await created(stack, username="u", password="secret")
    kept = stack.database.execute(
        "SELECT password_encrypted FROM mqtt_broker_config WHERE id = %s", broker["id"]
    )[0][0]
    keys = EncryptionKeys.read(stack.encryption_keys_file)
    place = place_of("mqtt_broker_config", "password_encrypted", broker["id"])
    assert keys.open(kept, place=place).plain == "secret"
    # Editing another field does not touch the password.
    path = f"/brokers/{broker['id']}"
    assert (await stack.admin("PATCH", path, json={"port": 1})).json()["has_password"] is True
    cleared = await stack.admin("PATCH", path, json={"password": None, "username": None})
    assert (cleared.json()["has_password"], cleared.json()["username"]) == (False, None)


async def test_a_broker_service_does_not_start_without_the_keys_it_needs(stack: Stack) -> None:
    broker = await created(stack, username="u", password="secret")
    other = stack.home / "other-ring.json"
    other.write_text(stack.encryption_keys_file.read_text().replace("1", "2"))
    with pytest.raises(SystemExit, match="not in it: 1"):
        await stack.start_broker_service(encryption_keys_file=other)
    # With both keys in the ring, the same password is set again; then the old key may be removed.
    rings = [json.loads(file.read_text()) for file in (stack.encryption_keys_file, other)]
    both = stack.home / "both-rings.json"
    both.write_text(
        json.dumps({"active": 2, "keys": [key for ring in rings for key in ring["keys"]]})
    )
    await stack.stop_broker_service()
    await stack.start_broker_service(encryption_keys_file=both)
    path = f"/brokers/{broker['id']}"
    async with asyncio.timeout(10):
        while (await stack.admin("GET", path)).status_code == 503:
            await asyncio.sleep(0.05)
    for _ in range(2):
        anew = await stack.admin("PATCH", path, json={"password": "secret"})
        assert (anew.status_code, anew.json()["revision"]) == (200, broker["revision"] + 1)
    await stack.stop_broker_service()
    await stack.start_broker_service(encryption_keys_file=other)


async def test_a_dry_run_answers_as_the_request_would_and_stores_nothing(stack: Stack) -> None:
    other = await created(stack, name="Other")
    managed = {"management": "mosquitto", "username": "mooring", "password": "first"}
    broker = await created(stack, name="Berlin 1", protocol="mqtts", **managed)
    path = f"/brokers/{broker['id']}"
    stale = ("If-Match", f'"{broker["revision"] + 7}"')
    requests: list[tuple[str, str, dict[str, Any], list[tuple[str, str]]]] = [
        *(("POST", "/brokers", NEW | fields, []) for fields, _ in WRONG),
        *(("PATCH", path, fields, []) for fields, _ in WRONG),
        ("POST", "/brokers", NEW | {"name": "Other"}, []),
        ("POST", "/brokers", NEW | {"ca_certificate_id": 999}, []),
        ("POST", "/brokers", NEW | managed | {"name": "New", "labels": {"a": "b"}}, []),
        ("PATCH", path, {"keep_alive": 7}, [stale]),
        ("PATCH", path, {"name": "Other"}, []),
        ("PATCH", path, {"host": "elsewhere.example.com"}, []),
        ("PATCH", path, {"host": "elsewhere.example.com", "password": "next"}, []),
        ("PATCH", path, {"client_certificate_id": 999}, []),
        ("PATCH", path, {"keep_alive": 7, "description": None}, [("If-Match", "*")]),
        ("PATCH", path, {}, []),
        ("PATCH", "/brokers/1", {"is_active": False}, []),
        ("PATCH", f"/brokers/{other['id']}", {"is_active": False, "ca_cert": expired_ca()}, []),
        ("PATCH", f"/brokers/{other['id']}", {"is_active": False}, []),
        ("PATCH", "/brokers/999", {"port": 7}, []),
    ]
    ids = "SELECT last_value FROM mqtt_broker_config_id_seq"
    with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
        stored = Stored(connection)
        for method, to, body, conditions in requests:
            before = (stored.now(), connection.execute(ids).fetchone())
            tried = await asked(stack, method, f"{to}?dry_run=true", *conditions, json=body)
            assert (stored.now(), connection.execute(ids).fetchone()) == before
            done = await asked(stack, method, to, *conditions, json=body)
            assert tried.status_code == done.status_code, (body, tried.text, done.text)
            expected, answer = done.json(), tried.json()
            if done.is_success:
                assert "etag" not in tried.headers
                if method == "POST":
                    assert answer["id"] == 0
            for differs in ("id", "created_at", "updated_at", "request_id"):
                assert (differs in expected) == (differs in answer)
                expected.pop(differs, None)
                answer.pop(differs, None)
            assert answer == expected
