"""The history of pools has every change, also those by SQL, and each can be rolled back to."""

from typing import Any

from tests.integration.broker_service.pools.test_pools import made, members, slots_of
from tests.stack import Stack


async def history(stack: Stack, pool_id: int) -> list[dict[str, Any]]:
    response = await stack.admin("GET", f"/pools/{pool_id}/history")
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


async def test_the_history_says_who_changed_what(stack: Stack) -> None:
    second = await stack.create_broker("second")
    pool = await made(stack)
    path = f"/pools/{pool['id']}"
    both = members(stack.default_broker_id, second)
    await stack.admin("PATCH", path, json={"policy": "nearest", "members": both})
    stack.database.execute(
        "UPDATE pool_members SET weight = 7 WHERE broker_id = %s", second, role="mooring_operator"
    )
    third, latter, first = await history(stack, pool["id"])
    assert [each["kind"] for each in (first, latter, third)] == ["created", "updated", "updated"]
    assert first["changes"]["name"] == {"from": None, "to": "Europe"}
    assert latter["changes"] == {
        "members": {"from": pool["members"], "to": both},
        "policy": {"from": "weighted", "to": "nearest"},
    }
    assert (latter["changed_by"], latter["by_sql"]) == ("tests", False)
    assert (third["changed_by"], third["by_sql"]) == ("mooring_operator", True)
    assert third["changes"]["members"]["to"][1]["weight"] == 7
    page = (await stack.admin("GET", f"{path}/history?limit=2")).json()
    assert page["items"] == [third, latter]
    rest = await stack.admin("GET", f"{path}/history", params={"cursor": page["next_cursor"]})
    assert rest.json() == {"items": [first], "next_cursor": None}


async def test_a_rollback_restores_fields_and_members(stack: Stack) -> None:
    first, second = stack.default_broker_id, await stack.create_broker("second")
    pool = await made(stack)
    path = f"/pools/{pool['id']}"
    change = {"name": "New", "is_sticky": False, "members": members(first, second)}
    changed = (await stack.admin("PATCH", path, json=change)).json()
    was = (await stack.admin("GET", f"{path}/history/1")).json()
    assert was == {**pool, "created_at": None, "updated_at": was["updated_at"]}
    for revision, then in ((1, pool), (2, changed)):
        back = await stack.admin("POST", f"{path}/rollback", json={"revision": revision})
        assert back.status_code == 200, back.text
        for name in ("name", "is_sticky", "members"):
            assert back.json()[name] == then[name]
        assert (await stack.admin("GET", path)).json() == back.json()
    assert set(slots_of(stack, pool["id"])) == {first, second}
    assert back.json()["revision"] == 4


async def test_a_deleted_pool_comes_back_with_its_id(stack: Stack) -> None:
    pool = await made(stack)
    path = f"/pools/{pool['id']}"
    await stack.admin("DELETE", path)
    assert [each["kind"] for each in await history(stack, pool["id"])] == ["deleted", "created"]
    gone = await stack.admin("GET", f"{path}/history/2")
    assert (gone.status_code, gone.json()["reason"]) == (404, "REVISION_NOT_FOUND")
    back = await stack.admin("POST", f"{path}/rollback", json={"revision": 1})
    assert back.status_code == 200, back.text
    assert (back.json()["id"], back.json()["revision"]) == (pool["id"], 3)
    assert back.json()["members"] == pool["members"]


async def test_a_rollback_that_cannot_be_made_is_refused(stack: Stack) -> None:
    second = await stack.create_broker("second")
    pool = await made(stack, members=members(second))
    path = f"/pools/{pool['id']}"
    await stack.admin("PATCH", path, json={"members": [], "name": "New"})
    await made(stack, "Europe")
    for revision, status, reason in (
        (1, 409, "POOL_NAME_TAKEN"),
        (99, 404, "REVISION_NOT_FOUND"),
        (0, 422, "INVALID_INPUT"),
    ):
        refused = await stack.admin("POST", f"{path}/rollback", json={"revision": revision})
        assert (refused.status_code, refused.json()["reason"]) == (status, reason)
    await stack.admin("PATCH", path, json={"name": "Other"})
    await stack.admin("DELETE", f"/brokers/{second}")
    await stack.admin("DELETE", f"/pools/{pool['id'] + 1}")
    refused = await stack.admin("POST", f"{path}/rollback", json={"revision": 1})
    assert (refused.status_code, refused.json()["reason"]) == (422, "BROKER_UNKNOWN")
    never = await stack.admin("GET", "/pools/99/history")
    assert (never.status_code, never.json()["reason"]) == (404, "POOL_NOT_FOUND")
