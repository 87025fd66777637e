"""Lists that a text is searched in: every list finds alike, best first, and page by page."""

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

from mooring.registry.v1 import tokens_pb2

from tests.stack import Stack
from tests.unit.broker_service.certificates.test_certificates import root

ROLE = tokens_pb2.ROLE_VIEWER
# Texts that differ in how well they match "Cave", and one that does not.
NAMES = ("Cave", "cave 2", "The CAVE", "xcavex", "Cliff", "100%_\\", "Übung", "日本")

# What a search finds in every list: rows that match as well may be in any order.
FOUND: dict[str, list[set[str]]] = {
    "cave": [{"Cave"}, {"cave 2"}, {"The CAVE", "xcavex"}],
    "CLIFF": [{"Cliff"}],
    "%_\\": [{"100%_\\"}],
    "_": [{"100%_\\"}],
    "Übung": [{"Übung"}],
    "本": [{"日本"}],
    "no such thing": [],
    "a" * 255: [],
}


async def filled(stack: Stack) -> None:
    """Each list has a row for each name."""
    for number, name in enumerate(NAMES):
        await stack.create_broker(name, host=f"host-{number}.example")
        await stack.create_fleet(f"f{number}", name=name)
        await stack.create_key(description=name)
        await stack.registry.tokens(
            "CreateToken", tokens_pb2.CreateTokenRequest(name=name, role=ROLE)
        )
        account = {"username": f"user{number}", "description": name}
        assert (await stack.admin("POST", "/service-accounts", json=account)).status_code == 201
        made = await stack.admin("POST", "/certificates", json={"kind": "ca", "pem": root()})
        await stack.admin("PATCH", f"/certificates/{made.json()['id']}", json={"name": name})
        job = await stack.admin("POST", "/jobs", json={"kind": "assign", "mqtt_broker_id": None})
        stack.database.execute("UPDATE jobs SET actor = %s WHERE id = %s", name, job.json()["id"])


# The path of each list, and the field with the name.
LISTS = {
    "/brokers": "name",
    "/certificates": "name",
    "/fleets": "name",
    "/provisioning-keys": "description",
    "/service-accounts": "description",
    "/tokens": "name",
    "/jobs": "actor",
}


async def pages_of(stack: Stack, path: str, **query: Any) -> AsyncIterator[list[dict[str, Any]]]:
    cursor = ""
    while cursor is not None:
        answer = await stack.admin("GET", path, params={**query, "cursor": cursor})
        assert answer.status_code == 200, (path, query, answer.text)
        yield answer.json()["items"]
        cursor = answer.json()["next_cursor"]


async def found(stack: Stack, path: str, search: str, limit: int = 100) -> list[dict[str, Any]]:
    return [
        item async for page in pages_of(stack, path, search=search, limit=limit) for item in page
    ]


async def finds_by_name_best_first(stack: Stack) -> None:
    for path, field in LISTS.items():
        for search, expected in FOUND.items():
            rest = [item[field] for item in await found(stack, path, search)]
            for names in expected:
                assert set(rest[: len(names)]) == names, (path, search, rest)
                rest = rest[len(names) :]
            assert not rest, (path, search)


async def pages_of_a_search_are_whole(stack: Stack) -> None:
    for path in LISTS:
        whole = [item["id"] for item in await found(stack, path, "c")]
        assert len(whole) >= 5
        assert [item["id"] for item in await found(stack, path, "c", 1)] == whole
        assert [item["id"] for item in await found(stack, path, "c", 2)] == whole


async def ids_find_their_rows(stack: Stack) -> None:
    for path in LISTS:
        [first] = await found(stack, path, "Cliff")
        shown = str(first["id"])
        assert (await found(stack, path, shown))[0]["id"] == first["id"], path
        if len(shown) == 36:
            assert first["id"] in [one["id"] for one in await found(stack, path, shown[:4])]
            assert first["id"] not in [one["id"] for one in await found(stack, path, shown[:3])]
        if path == "/certificates":
            printed = first["fingerprint_sha256"].upper()
            pairs = ":".join(printed[at : at + 2] for at in range(0, len(printed), 2))
            for text in (printed, printed[:8], pairs, pairs[:8]):
                assert [one["id"] for one in await found(stack, path, text)] == [first["id"]]
    token = (await found(stack, "/tokens", "Cliff"))[0]
    assert [one["id"] for one in await found(stack, "/tokens", token["prefix"])] == [token["id"]]
    assert [one["host"] for one in await found(stack, "/brokers", "HOST-3.")] == ["host-3.example"]


async def other_filters_hold_in_a_search(stack: Stack) -> None:
    for path, query in {
        "/brokers": {"is_active": "false"},
        "/provisioning-keys": {"fleet_id": "f1"},
        "/jobs": {"state": "running"},
        "/certificates": {"kind": "client"},
        "/fleets": {"has_rollout": "true"},
    }.items():
        assert not [
            item async for page in pages_of(stack, path, search="c", **query) for item in page
        ], path
    wave = {"broker_id": stack.default_broker_id, "percent": 10}
    assert (await stack.admin("PUT", "/fleets/f1/rollout", json=wave)).is_success
    for query, ids in (
        ({"has_rollout": "true"}, ["f1"]),
        ({"has_rollout": "true", "search": "cave"}, ["f1"]),
        ({"has_rollout": "true", "search": "cliff"}, []),
        ({"has_rollout": "false", "search": "cave 2"}, []),
    ):
        listed = (await stack.admin("GET", "/fleets", params=query)).json()["items"]
        assert [item["id"] for item in listed] == ids, query


async def odd_searches_and_cursors_are_refused(stack: Stack) -> None:
    def cursor(text: object) -> str:
        return urlsafe_b64encode(json.dumps(text).encode()).decode()

    for path in LISTS:
        for query in (
            {"search": "\x00"},
            {"search": "x" * 256},
            *(
                {"search": "c", "cursor": cursor(text)}
                for text in ("", "9 1", "x", "1", "-1 5", f"1 {2**70}", "1 \x00", 5, None, [1])
                if path != "/fleets" or text not in ("1", f"1 {2**70}")
            ),
        ):
            answer = await stack.admin("GET", path, params=query)
            assert answer.status_code == 422, (path, query, answer.text)
    order = {"search": "c", "order": "not_after"}
    assert (await stack.admin("GET", "/certificates", params=order)).status_code == 422


async def a_search_finds_nothing_of_other_fleets(stack: Stack) -> None:
    request = tokens_pb2.CreateTokenRequest(
        name="north", role=ROLE, fleets=tokens_pb2.TokenFleets(ids=["f1"])
    )
    token = (await stack.registry.tokens("CreateToken", request)).secret
    for path in ("/fleets", "/provisioning-keys"):
        answer = await stack.http.get(
            f"/api/v1{path}",
            params={"search": "c"},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert [item["id"] for item in answer.json()["items"]] == (
            ["f1"] if path == "/fleets" else []
        )


async def test_every_searched_list_finds_alike(stack: Stack) -> None:
    await filled(stack)
    await finds_by_name_best_first(stack)
    await pages_of_a_search_are_whole(stack)
    await ids_find_their_rows(stack)
    await odd_searches_and_cursors_are_refused(stack)
    await a_search_finds_nothing_of_other_fleets(stack)
    await other_filters_hold_in_a_search(stack)
