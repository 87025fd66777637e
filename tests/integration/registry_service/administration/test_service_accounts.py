"""Service accounts: created, changed, rotated, deleted; their usernames are never a device's."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from registry_service.credentials import hash_of_password
from tests.integration.gateway.test_gateway_http import assert_problem
from tests.integration.registry_service.administration.test_import import BCRYPT, imported, row
from tests.integration.registry_service.provisioning.test_key_races import owned, waiting
from tests.stack import Stack

GRANTS: dict[str, Any] = {
    "publish": ["dashboard/#"],
    "subscribe": ["iot/device/+/telemetry/#", "$SYS/#"],
}
USERNAMES = "usernames"


async def made(stack: Stack, username: str = "dashboard", **fields: Any) -> dict[str, Any]:
    answer = await stack.admin("POST", "/service-accounts", json={"username": username, **fields})
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def changed(stack: Stack, account: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = await stack.admin("PATCH", f"/service-accounts/{account['id']}", json=fields)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def let_in(stack: Stack, username: str, password: str) -> list[int]:
    """The brokers that admit it, for a broker that reads the views."""
    found = stack.database.execute(
        "SELECT password_hash, salt, algorithm, broker_ids FROM mqtt_users WHERE username = %s",
        username,
        role="mqtt_reader",
    )
    return [
        broker_id
        for kept, salt, algorithm, broker_ids in found
        if (kept, algorithm) == (hash_of_password(salt, password), "sha256")
        for broker_id in broker_ids
    ]


def lines(stack: Stack, action: str) -> list[Any]:
    return stack.database.execute(
        "SELECT actor, subject, before, after FROM audit_log WHERE action = %s AND refusal = ''"
        " ORDER BY id",
        f"service_account.{action}",
    )


async def test_an_account_from_creation_to_deletion(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = await stack.create_broker("Cloud")
    both = [stack.default_broker_id, cloud]
    with capture_logs() as logs:
        shown = await made(stack, description="in the hall", **GRANTS)
        password = shown.pop("password")
        assert len(password) == 43
        assert {name: shown[name] for name in GRANTS} == GRANTS
        assert (shown["broker_ids"], shown["expires_at"], shown["is_active"]) == (None, None, True)
        path = f"/service-accounts/{shown['id']}"
        found = await stack.admin("GET", path)
        assert found.json() == shown
        assert found.headers["etag"] == f'"{shown["revision"]}"'
        everyone = await stack.admin("GET", "/service-accounts")
        assert everyone.json() == {"items": [shown], "next_cursor": None}
        assert sorted(let_in(stack, "dashboard", password)) == both
        acls = stack.database.execute("SELECT topic, access FROM mqtt_acls ORDER BY 2, 1")
        assert acls == [("$SYS/#", 1), ("iot/device/+/telemetry/#", 1), ("dashboard/#", 2)]

        after = await changed(stack, shown, broker_ids=[cloud, cloud], subscribe=["a", "a"])
        assert (after["broker_ids"], after["subscribe"]) == ([cloud], ["a"])
        assert after["revision"] > shown["revision"]
        assert let_in(stack, "dashboard", password) == [cloud]
        await changed(stack, shown, is_active=False)
        assert let_in(stack, "dashboard", password) == []
        await changed(stack, shown, is_active=True)

        rotated = (await stack.admin("POST", f"{path}/rotate")).json()
        renewed = rotated.pop("password")
        assert (await stack.admin("GET", path)).json() == rotated
        assert renewed != password
        assert let_in(stack, "dashboard", password) == []
        assert let_in(stack, "dashboard", renewed) == [cloud]

        assert (await stack.admin("DELETE", path)).status_code == 204
        assert let_in(stack, "dashboard", renewed) == []
        for method, each in (("GET", path), ("DELETE", path), ("POST", f"{path}/rotate")):
            assert_problem(await stack.admin(method, each), 404, "SERVICE_ACCOUNT_NOT_FOUND")

    account_id = shown["id"]
    made_of = {"username": "dashboard", "description": "in the hall", "is_active": True, **GRANTS}
    assert lines(stack, "create") == [("tests", account_id, None, made_of)]
    first, *_ = lines(stack, "update")
    assert first[2:] == (
        {"broker_ids": None, "subscribe": GRANTS["subscribe"]},
        {"broker_ids": [cloud], "subscribe": ["a"]},
    )
    hidden = {"password": "(hidden)"}
    assert lines(stack, "rotate") == [("tests", account_id, hidden, hidden)]
    [(_, _, before, after)] = lines(stack, "delete")
    assert (before["username"], before["broker_ids"], after) == ("dashboard", [cloud], None)

    everything = stack.database.execute("SELECT audit_log::text FROM audit_log")
    everything += stack.database.execute("SELECT service_accounts::text FROM service_accounts")
    for secret in (password, renewed):
        assert secret not in str(logs) + caplog.text + str(everything)


async def test_an_account_ends_when_it_expires(stack: Stack) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    shown = await made(stack, expires_at=soon.isoformat())
    assert datetime.fromisoformat(shown["expires_at"]) == soon
    assert let_in(stack, "dashboard", shown["password"])
    # A time in the past ends the account now, and null restores it.
    past = "2020-01-01T00:00:00Z"
    assert (await changed(stack, shown, expires_at=past))["expires_at"] == past
    assert let_in(stack, "dashboard", shown["password"]) == []
    assert (await changed(stack, shown, expires_at=None))["expires_at"] is None
    assert let_in(stack, "dashboard", shown["password"])


async def test_accounts_are_listed_page_by_page(stack: Stack) -> None:
    ids = {(await made(stack, f"user-{n}"))["id"] for n in range(5)}
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        params = {"limit": 2, "cursor": cursor}
        page = (await stack.admin("GET", "/service-accounts", params=params)).json()
        assert 0 < len(page["items"]) <= 2
        assert all("password" not in item for item in page["items"])
        found += [account["id"] for account in page["items"]]
        cursor = page["next_cursor"]
    assert found == sorted(ids)
    for wrong in ("garbage", "IjEi"):
        answer = await stack.admin("GET", "/service-accounts", params={"cursor": wrong})
        assert_problem(answer, 422, "INVALID_INPUT", "cursor")


async def test_invalid_fields_are_named(stack: Stack) -> None:
    longest = "x" * 65_535
    right: dict[str, Any] = {
        "username": "a" * 128,
        "publish": [longest, "/", "+/#"],
        "subscribe": ["a"] * 64,
    }
    account = await made(stack, **right)
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"description": "x" * 2_001}, "description"),
        ({"description": "a\x00b"}, "description"),
        ({"publish": ["a"] * 65}, "publish"),
        ({"publish": "a"}, "publish"),
        ({"publish": None}, "publish"),
        ({"publish": ["a", ""]}, "publish[1]"),
        ({"publish": ["a\x00b"]}, "publish[0]"),
        ({"publish": [longest + "x"]}, "publish[0]"),
        ({"publish": ["é" * 32_768]}, "publish[0]"),
        ({"subscribe": ["a/#/b"]}, "subscribe[0]"),
        ({"subscribe": ["a#"]}, "subscribe[0]"),
        ({"subscribe": ["a/b+"]}, "subscribe[0]"),
        ({"subscribe": ["$share/group/a"]}, "subscribe[0]"),
        ({"subscribe": ["$share/"]}, "subscribe[0]"),
        ({"broker_ids": []}, "broker_ids"),
        ({"broker_ids": [1] * 1_001}, "broker_ids"),
        ({"broker_ids": [0]}, "broker_ids[0]"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:00"}, "expires_at"),
        ({"is_active": None}, "is_active"),
        ({"password": "mine"}, "password"),
    ]
    path = f"/service-accounts/{account['id']}"
    for wrong, field in wrongs:
        answer = await stack.admin("POST", "/service-accounts", json={"username": "new", **wrong})
        assert_problem(answer, 422, "INVALID_INPUT", field)
        assert_problem(await stack.admin("PATCH", path, json=wrong), 422, "INVALID_INPUT", field)
    unknown = {"broker_ids": [stack.default_broker_id, 77]}
    for method, each in (("POST", "/service-accounts"), ("PATCH", path)):
        body = {"username": "new", **unknown} if method == "POST" else unknown
        answer = await stack.admin(method, each, json=body)
        assert_problem(answer, 422, "BROKER_UNKNOWN", "broker_ids[1]")
    for username in ("", "a" * 129, "a b", "a/b", "é", "a\n", "a\x00", None):
        answer = await stack.admin("POST", "/service-accounts", json={"username": username})
        assert_problem(answer, 422, "INVALID_INPUT", "username")
    answer = await stack.admin("POST", "/service-accounts", json={"username": "device_x"})
    assert_problem(answer, 422, "USERNAME_RESERVED", "username")
    late = {"username": "new", "expires_at": "2020-01-01T00:00:00Z"}
    answer = await stack.admin("POST", "/service-accounts", json=late)
    assert_problem(answer, 422, "INVALID_INPUT", "expires_at")
    # The username cannot be changed.
    answer = await stack.admin("PATCH", path, json={"username": "b"})
    assert_problem(answer, 422, "INVALID_INPUT", "username")
    for missing in ("none", "%00", "0" * 32):
        answer = await stack.admin("GET", f"/service-accounts/{missing}")
        assert_problem(answer, 404, "SERVICE_ACCOUNT_NOT_FOUND")
    assert stack.database.execute("SELECT id::text FROM service_accounts") == [(account["id"],)]


async def test_an_unchanged_account_has_no_line_and_no_revocation(stack: Stack) -> None:
    account = await made(stack, **GRANTS)
    del account["password"]
    fields = ("description", "publish", "subscribe", "broker_ids", "expires_at", "is_active")
    assert await changed(stack, account, **{name: account[name] for name in fields}) == account
    assert await changed(stack, account) == account
    assert lines(stack, "update") == []
    assert stack.database.execute("SELECT usernames FROM access_changes") == []


async def test_of_several_changes_of_one_revision_one_wins(stack: Stack) -> None:
    account = await made(stack)
    path = f"/service-accounts/{account['id']}"
    headers = {"Authorization": f"Bearer {stack.admin_token}", "If-Match": '"1"'}

    async def change(n: int) -> httpx2.Response:
        body = {"description": f"by {n}"}
        return await stack.http.patch(f"/api/v1{path}", json=body, headers=headers)

    answers = await asyncio.gather(*map(change, range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 5
    for method, late in (("DELETE", path), ("POST", f"{path}/rotate"), ("PATCH", path)):
        body = {"description": ""} if method == "PATCH" else None
        lost = await stack.http.request(method, f"/api/v1{late}", headers=headers, json=body)
        assert_problem(lost, 412, "LOST_RACE")
    headers["If-Match"] = '"2"'
    assert (await stack.http.post(f"/api/v1{path}/rotate", headers=headers)).status_code == 200
    headers["If-Match"] = '"3"'
    assert (await stack.http.delete(f"/api/v1{path}", headers=headers)).status_code == 204


async def test_a_username_belongs_to_one_account_or_one_imported_device(stack: Stack) -> None:
    await made(stack, "bridge")
    secret = {"password_hash": BCRYPT}
    again = await stack.admin("POST", "/service-accounts", json={"username": "bridge"})
    assert_problem(again, 409, "USERNAME_TAKEN", "username")
    rows = [
        row("one", mqtt_username="bridge", **secret),
        row("two", mqtt_username="pump", **secret),
        row("three", mqtt_username="Bridge", **secret),
    ]
    outcomes = [("USERNAME_TAKEN", "mqtt_username"), ("created", ""), ("created", "")]
    for query in ("?dry_run=true", ""):
        assert (await imported(stack, rows, query=query))[0] == outcomes
    taken = await stack.admin("POST", "/service-accounts", json={"username": "pump"})
    assert_problem(taken, 409, "USERNAME_TAKEN", "username")
    # A device that has registered has another username, so its old one is free.
    assert (await stack.register("two")).status_code == 200
    await made(stack, "pump")


async def test_the_first_to_take_a_username_keeps_it(stack: Stack) -> None:
    insert_account = (
        "INSERT INTO service_accounts (username, password_hash, password_salt)"
        " VALUES ('one', '', '')"
    )
    with owned(stack) as connection:
        # The registry takes this lock when it creates an account.
        connection.execute("SELECT FROM turns WHERE name = %s FOR UPDATE", [USERNAMES])
        connection.execute(insert_account)
        rows = [row("one", mqtt_username="one", password_hash=BCRYPT)]
        importing = asyncio.create_task(imported(stack, rows))
        await waiting(stack, 1)
    outcomes, _ = await importing
    assert outcomes == [("USERNAME_TAKEN", "mqtt_username")]

    insert_device = (
        "INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_username,"
        " mqtt_password_hash, credential_salt, provisioned_at)"
        " VALUES ('two', '', '', 'demo', 'two', '', '', NULL)"
    )
    with owned(stack) as connection:
        # The registry takes this lock when it imports a device; other imports continue.
        connection.execute("SELECT FROM turns WHERE name = %s FOR SHARE", [USERNAMES])
        connection.execute(insert_device)
        outcomes, _ = await imported(stack, [row("three")])
        assert outcomes == [("created", "")]
        body = {"username": "two"}
        making = asyncio.create_task(stack.admin("POST", "/service-accounts", json=body))
        await waiting(stack, 1)
    assert_problem(await making, 409, "USERNAME_TAKEN", "username")


def managed(stack: Stack) -> None:
    """Makes the default broker a managed one, whose sessions can be ended."""
    stack.database.execute(
        "UPDATE mqtt_broker_config SET management = 'mosquitto', username = 'u',"
        " password_encrypted = 'x' WHERE id = %s",
        stack.default_broker_id,
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"description": "another"}, ""),
        ({"publish": []}, "rotated"),
        ({"broker_ids": [1]}, "rotated"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "rotated"),
        ({"is_active": False}, "disabled"),
    ],
)
async def test_reduced_rights_end_sessions_and_a_new_description_does_not(
    stack: Stack, fields: dict[str, Any], reason: str
) -> None:
    managed(stack)
    account = await made(stack, **GRANTS)
    await changed(stack, account, **fields)
    revoked = stack.database.execute("SELECT username, broker_id, reason FROM revocations")
    assert revoked == ([("dashboard", stack.default_broker_id, reason)] if reason else [])


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda stack, path: stack.admin("POST", f"{path}/rotate"), "rotated"),
        (lambda stack, path: stack.admin("DELETE", path), "deleted"),
    ],
    ids=["rotated", "deleted"],
)
async def test_an_old_password_ends_with_its_sessions(
    stack: Stack, end: Callable[[Stack, str], Any], reason: str
) -> None:
    managed(stack)
    account = await made(stack)
    assert (await end(stack, f"/service-accounts/{account['id']}")).is_success
    revoked = stack.database.execute("SELECT username, reason FROM revocations")
    assert revoked == [("dashboard", reason)]
    assert stack.database.execute("SELECT usernames FROM access_changes") == [(["dashboard"],)]
