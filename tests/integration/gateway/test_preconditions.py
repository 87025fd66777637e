"""`If-Match`, for every resource that has an `ETag`: a change of what the caller has not seen is
refused, and changes nothing.

The walk finds these resources by their answers, so it covers new ones without naming them here.
"""

import asyncio
from typing import Any

import httpx2
import psycopg
import pytest

from gateway.examples import PARAMETERS
from tests.integration.gateway.test_document import (
    document_of,
    furnish,
    operations_of,
    sending,
    turn_of,
)
from tests.integration.gateway.test_gateway_http import assert_problem
from tests.integration.registry_service.provisioning.test_key_races import owned, waiting
from tests.stack import Stack
from tests.stored import Stored

ROLLOUT = "/fleets/demo/rollout"
# What an admitted caller may be refused for, if it has seen the present version.
IN_USE = {"BROKER_IS_DEFAULT", "BROKER_IN_USE", "FLEET_IN_USE", "POOL_IS_DEFAULT", "POOL_IN_USE"}


async def asked(
    stack: Stack, method: str, path: str, tag: str | None, **options: Any
) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {stack.admin_token}"}
    if tag is not None:
        headers["If-Match"] = tag
    headers |= options.pop("headers", {})
    return await stack.http.request(method, f"/api/v1{path}", headers=headers, **options)


async def tag_of(stack: Stack, path: str) -> str:
    """The resource's `ETag`; empty if it has none."""
    answer = await stack.admin("GET", path)
    return str(answer.headers.get("etag", "")) if answer.status_code == 200 else ""


async def begun(stack: Stack) -> str:
    """Begins a rollout, and returns the tag of its fleet."""
    rollout = {"broker_id": stack.default_broker_id, "percent": 1}
    answer = await stack.admin("PUT", ROLLOUT, json=rollout)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.headers["etag"])


async def test_every_resource_with_a_tag_is_changed_only_by_a_caller_who_has_seen_it(
    stack: Stack,
) -> None:
    await furnish(stack)
    await begun(stack)
    operations = [
        (path.removeprefix("/api/v1"), method, operation)
        for path, method, operation in operations_of(await document_of(stack))
        if path.startswith("/api/v1/") and not path.startswith("/api/v1/device/")
    ]
    tags: dict[str, str] = {}
    for path, method, operation in operations:
        required = [each for each in operation.get("parameters", ()) if each.get("required")]
        if method == "get" and all(each["in"] == "path" for each in required) and required:
            tags[path] = await tag_of(stack, path.format(**PARAMETERS))
    tagged = {path for path, tag in tags.items() if tag}
    assert {"/brokers/{broker_id}", "/fleets/{fleet_id}", "/fleets/{fleet_id}/rollout"} <= tagged
    assert {"/pools/{pool_id}", "/regions/{region_id}"} <= tagged
    assert {"/provisioning-keys/{key_id}", "/service-accounts/{account_id}"} <= tagged

    conditional = []
    for path, method, operation in operations:
        headers = {each["name"] for each in operation.get("parameters", ())}
        if path in tagged and method in ("put", "patch", "delete"):
            assert "If-Match" in headers, (method, path)
        if "If-Match" in headers:
            resource = max((each for each in tagged if path.startswith(each)), key=len)
            conditional.append((path, method, operation, resource))
    # What ends a resource comes last, and what is within another resource before that one.
    conditional.sort(key=lambda each: (turn_of(each[1], each[0]), -each[0].count("/")))
    assert len(conditional) >= 15

    with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
        stored = Stored(connection)
        before = stored.now()
        for path, method, operation, resource in conditional:
            tag = tags[resource]
            for stale in ('"0"', f"W/{tag}", f'"{int(tag.strip(chr(34))) + 1}", "x"', ""):
                url = path.format(**PARAMETERS)
                lost = await asked(stack, method.upper(), url, stale, **sending(operation))
                assert_problem(lost, 412, "LOST_RACE")
        assert stored.now() == before

    for path, method, operation, resource in conditional:
        url, where = path.format(**PARAMETERS), resource.format(**PARAMETERS)
        for condition in ("present", "*"):
            if "rollout" in path:
                await begun(stack)
            present = await tag_of(stack, where)
            if not present:
                assert (method, condition) == ("delete", "*"), (method, path)
                continue  # deleted by the request before
            given = "*" if condition == "*" else f'"0", {present}'
            answer = await asked(stack, method.upper(), url, given, **sending(operation))
            assert answer.status_code < 300 or answer.json()["reason"] in IN_USE, (
                *(method, path, given),
                answer.text,
            )
            if shown := answer.headers.get("etag"):
                assert await tag_of(stack, where) in (shown, ""), (method, path)


async def test_of_changes_by_callers_who_saw_the_same_fleet_one_is_made(stack: Stack) -> None:
    other = await stack.create_broker("other")

    def changes(n: int) -> list[tuple[str, str, Any]]:
        return [
            ("PATCH", "/fleets/demo", {"name": f"name {n}"}),
            ("PATCH", "/fleets/demo", {"uuid_prefix": f"prefix-{n}"}),
            ("PUT", ROLLOUT, {"broker_id": other, "percent": n}),
            ("DELETE", ROLLOUT, None),
            ("POST", f"{ROLLOUT}/complete", None),
        ]

    for n, first in enumerate(changes(100)):
        tag = await begun(stack)
        assert tag == await tag_of(stack, "/fleets/demo") == await tag_of(stack, ROLLOUT)
        won = await asked(stack, first[0], first[1], tag, json=first[2])
        assert won.status_code < 300, won.text
        late = [*changes(n), ("DELETE", "/fleets/demo?with_devices=true", None)]
        for method, path, body in late:
            assert_problem(await asked(stack, method, path, tag, json=body), 412, "LOST_RACE")
        tag = await begun(stack)
        answers = await asyncio.gather(
            *(asked(stack, method, path, tag, json=body) for method, path, body in changes(n))
        )
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses[0] < 300, statuses
        assert statuses[1:] == [412] * (len(answers) - 1)


async def test_of_changes_by_callers_who_saw_the_same_key_one_is_made(stack: Stack) -> None:
    key = (await stack.admin("POST", "/provisioning-keys", json={"fleet_id": "demo"})).json()
    path = f"/provisioning-keys/{key['id']}"
    tag = await tag_of(stack, path)
    changes = [asked(stack, "PATCH", path, tag, json={"description": f"{n}"}) for n in range(5)]
    revocations = [asked(stack, "DELETE", path, tag) for _ in range(2)]
    answers = await asyncio.gather(*changes, *revocations)
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] < 300, statuses
    assert statuses[1:] == [412] * 6


async def test_using_a_key_is_no_change_of_it(stack: Stack) -> None:
    made = await stack.admin("POST", "/provisioning-keys", json={"fleet_id": "demo"})
    key, tag = made.json(), made.headers["etag"]
    path = f"/provisioning-keys/{key['id']}"
    assert (await stack.register("d", key=key["key"])).status_code == 201
    assert (await stack.register("d", key=key["key"])).status_code == 200
    used = await stack.admin("GET", path)
    assert used.json()["devices_provisioned"] == 1
    assert (used.headers["etag"], used.json()["revision"]) == (tag, key["revision"])
    # The count is not hidden from a caller that has the tag.
    known = await asked(stack, "GET", path, None, headers={"If-None-Match": tag})
    assert (known.status_code, known.json()) == (200, used.json())
    changed = await asked(stack, "PATCH", path, tag, json={"max_devices": 9})
    assert changed.status_code == 200, changed.text
    assert changed.headers["etag"] == f'"{changed.json()["revision"]}"' != tag
    revoked = await asked(stack, "POST", f"{path}/revoke", tag, json={"devices": "deactivate"})
    assert_problem(revoked, 412, "LOST_RACE")
    assert (await stack.admin("GET", "/devices/d")).json()["is_active"]


async def test_a_known_rollout_is_answered_with_not_modified(stack: Stack) -> None:
    tag = await begun(stack)
    known = await asked(stack, "GET", ROLLOUT, None, headers={"If-None-Match": tag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    rollout = {"broker_id": stack.default_broker_id, "percent": 2}
    assert (await stack.admin("PUT", ROLLOUT, json=rollout)).headers["etag"] != tag
    found = await asked(stack, "GET", ROLLOUT, None, headers={"If-None-Match": tag})
    assert found.json()["percent"] == 2


@pytest.mark.parametrize("is_enabled_again", [True, False])
async def test_a_fleet_is_deleted_with_its_devices_unless_it_changes_meanwhile(
    stack: Stack, is_enabled_again: bool
) -> None:
    await stack.create_fleet("north")
    assert (await stack.register("d", key=await stack.create_key(fleet_id="north"))).is_success
    tag = await tag_of(stack, "/fleets/north")
    path = "/fleets/north?with_devices=true"
    assert_problem(await asked(stack, "DELETE", path, '"0"'), 412, "LOST_RACE")
    assert (await stack.admin("GET", "/fleets/north")).json()["is_active"]
    with owned(stack) as connection:
        connection.execute("SELECT FROM devices WHERE uuid = 'd' FOR UPDATE")
        deleting = asyncio.create_task(asked(stack, "DELETE", path, tag))
        await waiting(stack, 1)
        # The fleet is disabled, and its devices are about to be deleted.
        fleet = (await stack.admin("GET", "/fleets/north")).json()
        assert not fleet["is_active"]
        if is_enabled_again:
            await stack.admin("PATCH", "/fleets/north", json={"is_active": True})
        connection.commit()
    answer = await deleting
    found = await stack.admin("GET", "/fleets/north")
    if is_enabled_again:
        assert_problem(answer, 412, "LOST_RACE")
        assert found.json()["is_active"]
        return
    assert (answer.status_code, found.status_code) == (204, 404)
    # Another fleet of this id is not the one that was seen.
    await stack.create_fleet("north")
    assert_problem(await asked(stack, "DELETE", "/fleets/north", tag), 412, "LOST_RACE")
