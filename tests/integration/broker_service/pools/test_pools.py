"""Pools of brokers, from their creation to their deletion."""

import asyncio
from typing import Any

import pytest

from chassis.trust import Access
from domain.slots import SLOTS
from tests.stack import Stack


def members(*broker_ids: int, **fields: int) -> list[dict[str, int]]:
    return [{"broker_id": one, "weight": 100, "priority": 1, **fields} for one in broker_ids]


async def made(stack: Stack, name: str = "Europe", **fields: Any) -> dict[str, Any]:
    """Creates a pool, of the default broker unless it is said otherwise."""
    given = {"name": name, "members": members(stack.default_broker_id), **fields}
    answer = await stack.admin("POST", "/pools", json=given)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def slots_of(stack: Stack, pool_id: int) -> dict[int, int]:
    """How many slots each member has."""
    query = "SELECT one, count(*) FROM pools, unnest(slots) AS one WHERE id = %s GROUP BY one"
    return dict(stack.database.execute(query, pool_id))


async def test_a_pool_from_creation_to_deletion(stack: Stack) -> None:
    first, second = stack.default_broker_id, await stack.create_broker("second")
    given = {
        "name": "Europe",
        "description": "two data centres",
        "policy": "priority",
        "is_sticky": False,
        "members": [
            {"broker_id": second, "weight": 50, "priority": 2},
            {"broker_id": first},
        ],
    }
    dry = await stack.admin("POST", "/pools?dry_run=true", json=given)
    assert (dry.status_code, dry.json()["id"], "etag" in dry.headers) == (201, 0, False)
    assert (await stack.admin("GET", "/pools")).json()["items"] == []
    answer = await stack.admin("POST", "/pools", json=given)
    pool = answer.json()
    wanted = [*members(first), {"broker_id": second, "weight": 50, "priority": 2}]
    assert pool == {**pool, **given, "members": wanted, "is_default": False}
    assert (pool["revision"], pool["rebalance_percent"]) == (1, None)
    assert answer.headers["etag"] == '"1"'
    path = f"/pools/{pool['id']}"
    assert (await stack.admin("GET", path)).json() == pool
    assert (await stack.admin("GET", "/pools")).json()["items"] == [pool]
    for query, found in (
        ({"broker_id": second}, [pool]),
        ({"broker_id": 999}, []),
        ({"id": [pool["id"], 99]}, [pool]),
        ({"search": "europ"}, [pool]),
        ({"search": "asia"}, []),
    ):
        assert (await stack.admin("GET", "/pools", params=query)).json()["items"] == found

    changed = await stack.admin("PATCH", path, json={"description": None, "is_sticky": None})
    assert (changed.json()["description"], changed.json()["is_sticky"]) == ("", True)
    assert changed.json()["revision"] == 2
    # Nothing changes, so there is no revision.
    same = await stack.admin("PATCH", path, json={"policy": "priority", "members": wanted})
    assert same.json()["revision"] == 2
    assert (await stack.admin("DELETE", path)).status_code == 204
    gone = await stack.admin("GET", path)
    assert (gone.status_code, gone.json()["reason"]) == (404, "POOL_NOT_FOUND")


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"name": ""}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"name": "a\0b"}, "name"),
    ({"name": None}, "name"),
    ({"description": "x" * 1001}, "description"),
    ({"policy": "random"}, "policy"),
    ({"members": [{"broker_id": 1}, {"broker_id": 1}]}, "members[1].broker_id"),
    ({"members": [{"broker_id": 999}]}, "members"),
    ({"members": [{"broker_id": 1, "weight": 10_001}]}, "members[0].weight"),
    ({"members": [{"broker_id": 1, "weight": -1}]}, "members[0].weight"),
    ({"members": [{"broker_id": 1, "priority": 0}]}, "members[0].priority"),
    ({"members": [{}]}, "members[0]"),
    ({"is_default": True}, ""),
)


@pytest.mark.parametrize(("fields", "field"), WRONG)
async def test_a_wrong_field_is_named(stack: Stack, fields: dict[str, Any], field: str) -> None:
    pool = await made(stack)
    for method, path, body in (
        ("POST", "/pools", {"name": "other", **fields}),
        ("PATCH", f"/pools/{pool['id']}", fields),
    ):
        refused = await stack.admin(method, path, json=body)
        assert refused.status_code == 422, refused.text
        assert refused.json().get("field", "").startswith(field), refused.text
    assert (await stack.admin("GET", "/pools")).json()["items"] == [pool]


async def test_two_pools_cannot_have_one_name(stack: Stack) -> None:
    await made(stack)
    other = await made(stack, "other")
    for method, path in (("POST", "/pools"), ("PATCH", f"/pools/{other['id']}")):
        refused = await stack.admin(method, path, json={"name": "Europe"})
        assert (refused.status_code, refused.json()["reason"]) == (409, "POOL_NAME_TAKEN")
        assert refused.json()["field"] == "name"


async def test_a_change_says_first_who_would_move(stack: Stack) -> None:
    first, second = stack.default_broker_id, await stack.create_broker("second")
    pool = await made(stack)
    path = f"/pools/{pool['id']}"
    for n in range(8):
        assert (await stack.register(f"device-{n}")).status_code == 201
    change = {"members": members(first, second)}
    dry = (await stack.admin("PATCH", f"{path}?dry_run=true", json=change)).json()
    half = {"from_broker_id": first, "to_broker_id": second, "slots": SLOTS // 2, "devices": 4}
    assert (dry["moves"], dry["homes_stay"]) == ([half], True)
    assert slots_of(stack, pool["id"]) == {first: SLOTS}
    assert (await stack.admin("GET", path)).json() == pool
    done = (await stack.admin("PATCH", path, json=change)).json()
    assert (done["revision"], "moves" in done) == (2, False)
    assert slots_of(stack, pool["id"]) == {first: SLOTS // 2, second: SLOTS // 2}
    # Three quarters of the second's slots stay where they are.
    weighed_members = [*members(first), *members(second, weight=60)]
    weighing = {"members": weighed_members, "is_sticky": False}
    weighed = (await stack.admin("PATCH", f"{path}?dry_run=true", json=weighing)).json()
    [move] = weighed["moves"]
    assert (move["from_broker_id"], move["to_broker_id"]) == (second, first)
    assert (move["slots"], weighed["homes_stay"]) == (2048, False)
    none: dict[str, Any] = {"members": []}
    assert (await stack.admin("PATCH", f"{path}?dry_run=true", json=none)).json()["moves"] == []
    assert (await stack.admin("PATCH", path, json=none)).status_code == 200
    assert slots_of(stack, pool["id"]) == {}


async def test_there_is_at_most_one_default(stack: Stack) -> None:
    one, two = await made(stack, "one"), await made(stack, "two")
    paths = [f"/pools/{pool['id']}" for pool in (one, two)]
    answers = await asyncio.gather(
        *(stack.admin("POST", f"{path}/default") for path in [*paths, *paths])
    )
    assert {answer.status_code for answer in answers} == {200}
    listed = (await stack.admin("GET", "/pools")).json()["items"]
    [default] = [pool for pool in listed if pool["is_default"]]
    path = f"/pools/{default['id']}"
    refused = await stack.admin("DELETE", path)
    assert (refused.status_code, refused.json()["reason"]) == (409, "POOL_IS_DEFAULT")
    for _ in range(2):
        assert (await stack.admin("DELETE", f"{path}/default")).status_code == 204
    assert (await stack.admin("DELETE", path)).status_code == 204


async def test_a_rebalancing_keeps_its_salt_until_it_ends(stack: Stack) -> None:
    pool = await made(stack)
    path, salts = f"/pools/{pool['id']}", []
    for percent in (10, 12.5, 100):
        answer = await stack.admin("POST", f"{path}/rebalance", json={"percent": percent})
        assert (answer.status_code, answer.json()["rebalance_percent"]) == (200, percent)
        salts += stack.database.execute("SELECT rebalance_salt FROM pools")
    assert len(set(salts)) == 1
    for wrong in (-1, 100.5, 0.001, "1", None):
        refused = await stack.admin("POST", f"{path}/rebalance", json={"percent": wrong})
        assert (refused.status_code, refused.json()["field"]) == (422, "percent")
    for _ in range(2):
        assert (await stack.admin("DELETE", f"{path}/rebalance")).status_code == 204
    assert (await stack.admin("GET", path)).json()["rebalance_percent"] is None
    await stack.admin("POST", f"{path}/rebalance", json={"percent": 1})
    assert stack.database.execute("SELECT rebalance_salt FROM pools") != salts[:1]
    await stack.admin("PATCH", path, json={"is_sticky": False})
    refused = await stack.admin("POST", f"{path}/rebalance", json={"percent": 2})
    assert (refused.status_code, refused.json()["reason"]) == (409, "POOL_NOT_STICKY")


async def test_a_token_sees_only_pools_whose_members_its_fleets_may_use(stack: Stack) -> None:
    theirs, other = await stack.create_broker("theirs"), await stack.create_broker("other")
    fleet = {"id": "limited", "name": "l", "allowed_broker_ids": [theirs]}
    assert (await stack.admin("POST", "/fleets", json=fleet)).status_code == 201
    own = await made(stack, "own", members=members(theirs))
    mixed = await made(stack, "mixed", members=members(theirs, other))
    empty = await made(stack, "empty", members=[])
    token = await stack.token(Access.OPERATOR, ("limited",))
    headers = {"Authorization": f"Bearer {token}"}
    listed = await stack.http.get("/api/v1/pools", headers=headers)
    assert listed.json()["items"] == [own]
    for pool, status in ((own, 200), (mixed, 404), (empty, 404)):
        found = await stack.http.get(f"/api/v1/pools/{pool['id']}", headers=headers)
        assert found.status_code == status
        refused = await stack.http.patch(
            f"/api/v1/pools/{pool['id']}", headers=headers, json={"name": "mine"}
        )
        assert refused.status_code == 403


async def test_every_change_has_its_line_in_the_audit_log(stack: Stack) -> None:
    pool = await made(stack)
    path = f"/pools/{pool['id']}"
    for method, below, body in (
        ("PATCH", "", {"is_sticky": True, "name": "Asia"}),
        ("POST", "/default", None),
        ("DELETE", "/default", None),
        ("POST", "/rebalance", {"percent": 5}),
        ("DELETE", "/rebalance", None),
        ("POST", "/rollback", {"revision": 1}),
        ("PATCH", "?dry_run=true", {"name": "nothing"}),
        ("DELETE", "", None),
    ):
        answer = await stack.admin(method, f"{path}{below}", json=body)
        assert answer.status_code < 300, (method, below, answer.text)
    lines = stack.database.execute(
        "SELECT action, before, after FROM audit_log WHERE subject = %s AND action LIKE 'pool%%'"
        " ORDER BY id",
        str(pool["id"]),
    )
    assert [line[0] for line in lines] == [
        "pool.create",
        "pool.update",
        "pool.set_default",
        "pool.clear_default",
        "pool.rebalance",
        "pool.stop_rebalancing",
        "pool.rollback",
        "pool.delete",
    ]
    assert lines[1][1:] == ({"name": "Europe"}, {"name": "Asia"})
    assert lines[4][1:] == ({"rebalance_percent": None}, {"rebalance_percent": 5})
