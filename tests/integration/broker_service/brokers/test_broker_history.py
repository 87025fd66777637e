"""The history of brokers has every change, also those by SQL, and each can be rolled back to."""

import asyncio
import base64
import json
from typing import Any

import psycopg
import pytest
import trustme

from tests.integration.broker_service.brokers.test_brokers import created, pem_of
from tests.stack import Stack

KEPT = ("revision", "updated_at", "is_default")
PASSWORD = "s3cret-Passw0rd-of-the-broker"
MANAGED = {"management": "emqx", "management_url": "https://emqx.example.com"}
UNMANAGED = {"management": None, "management_url": None}


async def history(stack: Stack, broker_id: int) -> list[dict[str, Any]]:
    response = await stack.admin("GET", f"/brokers/{broker_id}/history")
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def without(broker: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in broker.items() if name not in KEPT}


async def test_the_history_says_who_changed_what(stack: Stack) -> None:
    broker = await created(stack, labels={"site": "a"})
    path = f"/brokers/{broker['id']}"
    await stack.admin("PATCH", path, json={"port": 8884, "labels": {"site": "b"}})
    # Nothing changes, so the history has no new entry.
    same = await stack.admin("PATCH", path, json={"port": 8884})
    assert same.json()["revision"] == 2
    stack.database.execute(
        "UPDATE mqtt_broker_config SET host = 'moved.example.com' WHERE id = %s",
        broker["id"],
        role="mooring_operator",
    )
    await stack.admin("POST", f"{path}/default")
    fourth, third, second, first = await history(stack, broker["id"])
    assert [entry["revision"] for entry in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert [entry["kind"] for entry in (first, second)] == ["created", "updated"]
    assert first["changes"]["host"] == {"from": None, "to": "mqtt.example.com"}
    assert second["changes"] == {
        "labels": {"from": {"site": "a"}, "to": {"site": "b"}},
        "port": {"from": 8883, "to": 8884},
    }
    assert (second["changed_by"], second["by_sql"]) == ("tests", False)
    assert third["changes"] == {"host": {"from": "mqtt.example.com", "to": "moved.example.com"}}
    assert (third["changed_by"], third["by_sql"]) == ("mooring_operator", True)
    assert fourth["changes"] == {"is_default": {"from": False, "to": True}}
    # The broker that was the default before has changed too.
    assert (await history(stack, stack.default_broker_id))[0]["changes"] == {
        "is_default": {"from": True, "to": False}
    }


async def test_an_operator_cannot_act_under_another_name(stack: Stack) -> None:
    with psycopg.connect(stack.database.url("mooring_operator")) as connection:
        connection.execute("SET mooring.actor = 'boss'")
        connection.execute("UPDATE mqtt_broker_config SET port = 1")
    newest = (await history(stack, stack.default_broker_id))[0]
    assert (newest["changed_by"], newest["by_sql"]) == ("mooring_operator", True)
    for statement in (
        "INSERT INTO mqtt_broker_history VALUES (1, 99, 'deleted', now(), 'x', false)",
        "DELETE FROM mqtt_broker_history",
        "UPDATE mqtt_broker_history SET changed_by = 'x'",
    ):
        for role in ("mooring_operator", "mooring_broker", "mooring_registry"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                stack.database.execute(statement, role=role)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stack.database.execute(
            "SELECT password_encrypted FROM mqtt_broker_history", role="mooring_operator"
        )


SAME_PASSWORD = {"password": "another password"}


async def test_a_rollback_restores_each_revision_exactly(stack: Stack) -> None:
    one, other = pem_of(trustme.CA()), pem_of(trustme.CA())
    broker = await created(stack, ca_cert=one, username="u", password=PASSWORD)
    path = f"/brokers/{broker['id']}"
    changes: list[dict[str, Any]] = [
        {"name": "Renamed", "ca_cert": other, "labels": {"a": "b"}},
        {"username": "v", **SAME_PASSWORD},
        # This changes the password's destination, so the password must be given again.
        {"protocol": "wss", "path": "/mqtt", "is_active": False, **MANAGED, **SAME_PASSWORD},
        {"ca_cert": None, "password": None, "username": None, "region": "eu", **UNMANAGED},
    ]
    kept = "SELECT password_encrypted FROM mqtt_broker_config WHERE id = %s"
    states = [(broker, stack.database.execute(kept, broker["id"]))]
    for change in changes:
        answer = await stack.admin("PATCH", path, json=change)
        assert answer.status_code == 200, answer.text
        states.append((answer.json(), stack.database.execute(kept, broker["id"])))
    for revision in (3, 1, 5, 2, 4):
        then, password = states[revision - 1]
        was = (await stack.admin("GET", f"{path}/history/{revision}")).json()
        assert was == then
        back = await stack.admin("POST", f"{path}/rollback", json={"revision": revision})
        assert back.status_code == 200, back.text
        assert without(back.json()) == without(then)
        assert stack.database.execute(kept, broker["id"]) == password
        assert (await stack.admin("GET", path)).json() == back.json()
    entries = await history(stack, broker["id"])
    assert [entry["revision"] for entry in entries] == list(range(10, 0, -1))
    assert entries[0]["changes"]["protocol"] == {"from": "mqtts", "to": "wss"}
    assert entries[0]["changes"]["management"] == {"from": "", "to": "emqx"}
    # A rollback to the present state changes nothing.
    again = await stack.admin("POST", f"{path}/rollback", json={"revision": 4})
    assert again.json()["revision"] == 10


async def test_a_rollback_to_a_state_that_is_invalid_now_is_refused(stack: Stack) -> None:
    broker = await created(stack, is_active=False)
    path = f"/brokers/{broker['id']}"
    await stack.admin("PATCH", path, json={"is_active": True, "name": "New"})
    await stack.admin("POST", f"{path}/default")
    refused = await stack.admin("POST", f"{path}/rollback", json={"revision": 1})
    assert (refused.status_code, refused.json()["reason"]) == (409, "BROKER_IS_DEFAULT")
    await stack.admin("POST", f"/brokers/{stack.default_broker_id}/default")
    await created(stack)  # takes the old name
    refused = await stack.admin("POST", f"{path}/rollback", json={"revision": 1})
    assert (refused.status_code, refused.json()["reason"]) == (409, "BROKER_NAME_TAKEN")
    refused = await stack.admin("POST", f"{path}/rollback", json={"revision": 99})
    assert (refused.status_code, refused.json()["reason"]) == (404, "REVISION_NOT_FOUND")
    for body in ({}, {"revision": 0}, {"revision": 2**63}, {"revision": "1"}):
        refused = await stack.admin("POST", f"{path}/rollback", json=body)
        assert (refused.status_code, refused.json()["field"]) == (422, "revision")
    # SQL can set what the API refuses: it is in the history, but cannot be rolled back to.
    set_region = "UPDATE mqtt_broker_config SET region = %s WHERE id = %s"
    stack.database.execute(set_region, "r" * 65, broker["id"])
    revision = (await history(stack, broker["id"]))[0]["revision"]
    stack.database.execute(set_region, "", broker["id"])
    refused = await stack.admin("POST", f"{path}/rollback", json={"revision": revision})
    assert (refused.status_code, refused.json()["field"]) == (422, "region")


async def test_a_rollback_keeps_fields_that_did_not_exist_at_that_revision(stack: Stack) -> None:
    broker = await created(stack)
    path = f"/brokers/{broker['id']}"
    await stack.admin("PATCH", path, json={"username": "u", "password": PASSWORD})
    stack.database.execute(
        "UPDATE mqtt_broker_history SET state = state - 'management' - 'management_url'"
    )
    now = await stack.admin("PATCH", path, json={"port": 1, "password": PASSWORD, **MANAGED})
    assert now.status_code == 200, now.text
    was = (await stack.admin("GET", f"{path}/history/1")).json()
    assert (was["management"], was["management_url"]) == ("", "")
    # The password is the same, but for another destination, so it is encrypted again.
    assert set((await history(stack, broker["id"]))[0]["changes"]) == {"port", "password"}
    # The broker would lose the login that its management needs.
    refused = await stack.admin("POST", f"{path}/rollback", json={"revision": 1})
    assert (refused.status_code, refused.json()["field"]) == (422, "management")
    # The password of that revision was not given for the management API.
    refused = await stack.admin("POST", f"{path}/rollback", json={"revision": 2})
    assert (refused.status_code, refused.json()["field"]) == (422, "password")
    body = {"revision": 2, "password": PASSWORD}
    back = (await stack.admin("POST", f"{path}/rollback", json=body)).json()
    assert (back["port"], back["management"]) == (8883, "emqx")
    await stack.admin("PATCH", path, json=UNMANAGED)
    back = (await stack.admin("POST", f"{path}/rollback", json={"revision": 1})).json()
    assert (back["username"], back["has_password"], back["management"]) == (None, False, "")


async def test_a_password_whose_key_is_gone_does_not_come_back(stack: Stack) -> None:
    broker = await created(stack, username="u", password=PASSWORD)
    path = f"/brokers/{broker['id']}"
    await stack.admin("PATCH", path, json={"username": None, "password": None})
    other = stack.home / "other-ring.json"
    ring = {"active": 2, "keys": [{"id": 2, "secret": base64.b64encode(bytes(32)).decode()}]}
    other.write_text(json.dumps(ring))
    # The database only knows that no broker uses the old key; the history does not count.
    await stack.stop_broker_service()
    await stack.start_broker_service(encryption_keys_file=other)
    async with asyncio.timeout(10):
        while (found := await stack.admin("GET", path)).status_code == 503:
            await asyncio.sleep(0.05)
    before = found.json()
    refused = await stack.admin("POST", f"{path}/rollback", json={"revision": 1})
    assert (refused.status_code, refused.json()["reason"]) == (409, "PASSWORD_KEY_GONE")
    assert "set a new password" in refused.json()["detail"]
    assert (await stack.admin("GET", path)).json() == before
    # A deleted broker comes back with a readable password or not at all.
    await stack.admin("PATCH", path, json={"username": "u", "password": "new"})
    assert (await stack.admin("DELETE", path)).status_code == 204
    refused = await stack.admin("POST", f"{path}/rollback", json={"revision": 1})
    assert (refused.status_code, refused.json()["reason"]) == (409, "PASSWORD_KEY_GONE")
    back = await stack.admin("POST", f"{path}/rollback", json={"revision": 3})
    assert (back.status_code, back.json()["has_password"]) == (200, True)
    await stack.stop_broker_service()
    await stack.start_broker_service(encryption_keys_file=other)


async def test_a_broker_that_was_deleted_comes_back_under_its_id(stack: Stack) -> None:
    ca = pem_of(trustme.CA())
    broker = await created(stack, ca_cert=ca, username="u", password=PASSWORD)
    path = f"/brokers/{broker['id']}"
    assert (await stack.admin("DELETE", path)).status_code == 204
    deleted, made = await history(stack, broker["id"])
    assert (deleted["kind"], deleted["changed_by"], deleted["revision"]) == ("deleted", "tests", 2)
    assert deleted["changes"]["name"] == {"from": "Cloud", "to": None}
    assert deleted["changes"]["password"] == made["changes"]["password"] == "changed"
    for gone in (f"{path}/history/2", path):
        assert (await stack.admin("GET", gone)).status_code == 404
    lost = await stack.http.post(
        f"/api/v1{path}/rollback",
        json={"revision": 1},
        headers={"Authorization": f"Bearer {stack.admin_token}", "If-Match": '"1"'},
    )
    assert (lost.status_code, lost.json()["reason"]) == (412, "LOST_RACE")
    # Of two rollbacks at once, one restores the broker; the other finds it, or loses the race.
    both = await asyncio.gather(
        *(stack.admin("POST", f"{path}/rollback", json={"revision": 1}) for _ in range(2))
    )
    assert sorted(answer.status_code for answer in both) in ([200, 200], [200, 412])
    back = (await stack.admin("GET", path)).json()
    assert without(back) == without(broker)
    assert back["revision"] == 3
    assert [entry["kind"] for entry in await history(stack, broker["id"])] == [
        *("created", "deleted", "created"),
    ]
    never = await stack.admin("GET", "/brokers/9999/history")
    assert (never.status_code, never.json()["reason"]) == (404, "BROKER_NOT_FOUND")


async def test_the_history_comes_a_page_at_a_time(stack: Stack) -> None:
    path = f"/brokers/{stack.default_broker_id}"
    for port in range(1, 8):
        await stack.admin("PATCH", path, json={"port": port})
    whole = await history(stack, stack.default_broker_id)
    paged: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await stack.admin("GET", f"{path}/history", params=query)).json()
        assert len(page["items"]) <= 2
        paged += page["items"]
        cursor = page["next_cursor"]
    assert paged == whole
    assert len(whole) == 9


async def test_passwords_are_in_no_answer_table_or_log(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await created(stack, username="u", password=PASSWORD)
    path = f"/brokers/{broker['id']}"
    answers = [
        await stack.admin("PATCH", path, json={"password": f"{PASSWORD}2"}),
        await stack.admin("PATCH", path, json={"password": f"{PASSWORD}\0"}),
        await stack.admin("PATCH", path, json={"password": [PASSWORD]}),
        await stack.admin("PATCH", path, json={"username": None}),
        await stack.admin("GET", "/brokers"),
        await stack.admin("GET", f"{path}/history"),
        await stack.admin("GET", f"{path}/history/1"),
        await stack.admin("POST", f"{path}/rollback", json={"revision": 1}),
        await stack.register("one"),
    ]
    assert [answer.status_code for answer in answers] == [200, 422, 422, 422, *[200] * 4, 201]
    assert answers[1].json()["field"] == answers[2].json()["field"] == "password"
    assert answers[3].json()["field"] == "username"
    assert all(PASSWORD not in answer.text for answer in answers)
    assert broker["has_password"] is True
    assert "password" not in broker
    assert "password_encrypted" not in json.dumps([answer.json() for answer in answers])
    dumped = [
        str(stack.database.execute(f"SELECT t::text, t FROM {table} AS t"))
        for table in ("mqtt_broker_config", "mqtt_broker_history", "audit_log")
    ]
    encoded = PASSWORD.encode()
    for text in (*dumped, caplog.text):
        assert PASSWORD not in text
        assert encoded.hex() not in text
    # Setting the same password is no change; another password is recorded as one.
    entries = await history(stack, broker["id"])
    assert entries[0]["changes"] == {"password": "changed"}
    same = await stack.admin("PATCH", path, json={"password": PASSWORD})
    assert same.json()["revision"] == entries[0]["revision"]


async def test_every_change_has_its_line_in_the_audit_log(stack: Stack) -> None:
    broker = await created(stack, username="u", password=PASSWORD)
    path = f"/brokers/{broker['id']}"
    await stack.admin("PATCH", path, json={"port": 1, "password": "other", **MANAGED})
    await stack.admin("PATCH", path, json={"port": 1})
    await stack.admin("POST", f"{path}/rollback", json={"revision": 1})
    await stack.admin("POST", f"{path}/default")
    await stack.admin("POST", f"{path}/default")
    await stack.admin("POST", f"/brokers/{stack.default_broker_id}/default")
    await stack.admin("DELETE", path)
    lines = stack.database.execute(
        "SELECT action, actor, before, after FROM audit_log WHERE subject = %s AND refusal = ''"
        " AND action LIKE 'broker.%%' ORDER BY id",
        str(broker["id"]),
    )
    assert [line[0] for line in lines] == [
        *("broker.create", "broker.update", "broker.rollback", "broker.set_default"),
        *("broker.set_default", "broker.delete"),
    ]
    assert {line[1] for line in lines} == {"tests"}
    assert lines[0][2] is None
    assert lines[0][3]["host"] == "mqtt.example.com"
    assert lines[1][2:] == (
        {"port": 8883, "password": "(hidden)", "management": "", "management_url": ""},
        {"port": 1, "password": "(hidden)", **MANAGED},
    )
    assert lines[2][2:] == (lines[1][3], lines[1][2])
    assert lines[3][2:] == (
        {"default_broker_id": stack.default_broker_id},
        {"default_broker_id": broker["id"]},
    )
    # The broker is the default no more.
    assert lines[4][2:] == ({"is_default": True}, {"is_default": False})
    assert lines[5][3] is None
