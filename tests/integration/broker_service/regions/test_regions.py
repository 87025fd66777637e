"""Regions, from their creation to their deletion."""

from typing import Any

import pytest

from tests.integration.broker_service.pools.test_pools import made
from tests.stack import Stack

NORTH = {"id": "north", "name": "North", "latitude": 59.3, "longitude": 18.1}


async def test_a_region_from_creation_to_deletion(stack: Stack) -> None:
    pool = await made(stack)
    answer = await stack.admin("POST", "/regions", json={**NORTH, "pool_id": pool["id"]})
    region = answer.json()
    assert answer.status_code == 201, answer.text
    assert region == {**region, **NORTH, "pool_id": pool["id"], "mqtt_broker_id": None}
    assert (region["revision"], answer.headers["etag"]) == (1, '"1"')
    assert (await stack.admin("GET", "/regions/north")).json() == region
    for search, found in (("", [region]), ("NOR", [region]), ("south", [])):
        listed = await stack.admin("GET", "/regions", params={"search": search})
        assert listed.json()["items"] == found
    change = {"pool_id": None, "mqtt_broker_id": stack.default_broker_id, "name": None}
    changed = (await stack.admin("PATCH", "/regions/north", json=change)).json()
    assert changed == {**region, **change, "name": "", "revision": 2}
    same = await stack.admin("PATCH", "/regions/north", json={"name": ""})
    assert same.json()["revision"] == 2
    cleared = await stack.admin(
        "PATCH", "/regions/north", json={"latitude": None, "longitude": None}
    )
    assert (cleared.json()["latitude"], cleared.json()["longitude"]) == (None, None)
    alone = await stack.admin("PATCH", "/regions/north", json={"latitude": 1})
    assert (alone.status_code, alone.json()["field"]) == (422, "longitude")
    # A broker that names the region keeps its text.
    stack.database.execute("UPDATE mqtt_broker_config SET region = 'north'")
    assert (await stack.admin("DELETE", "/regions/north")).status_code == 204
    gone = await stack.admin("GET", "/regions/north")
    assert (gone.status_code, gone.json()["reason"]) == (404, "REGION_NOT_FOUND")
    broker = await stack.admin("GET", f"/brokers/{stack.default_broker_id}")
    assert broker.json()["region"] == "north"
    lines = stack.database.execute(
        "SELECT action FROM audit_log WHERE subject = 'north' AND refusal = '' ORDER BY id"
    )
    assert [line[0] for line in lines] == [
        "region.create",
        "region.update",
        "region.update",
        "region.delete",
    ]


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"name": "x" * 201}, "name"),
    ({"name": "a\0"}, "name"),
    ({"latitude": 90.1, "longitude": 0}, "latitude"),
    ({"latitude": 0, "longitude": -180.1}, "longitude"),
    ({"latitude": None, "longitude": 1}, "latitude"),
    ({"mqtt_broker_id": 999}, "mqtt_broker_id"),
    ({"pool_id": 999}, "pool_id"),
    ({"pool_id": 1, "mqtt_broker_id": 1}, "pool_id"),
    ({"pool_id": 0}, "pool_id"),
)


@pytest.mark.parametrize(("fields", "field"), WRONG)
async def test_a_wrong_field_is_named(stack: Stack, fields: dict[str, Any], field: str) -> None:
    await made(stack)
    assert (await stack.admin("POST", "/regions", json=NORTH)).status_code == 201
    for method, path, body in (
        ("POST", "/regions", {"id": "south", **fields}),
        ("PATCH", "/regions/north", fields),
    ):
        refused = await stack.admin(method, path, json=body)
        assert (refused.status_code, refused.json().get("field")) == (422, field), refused.text
    assert len((await stack.admin("GET", "/regions")).json()["items"]) == 1


@pytest.mark.parametrize("region_id", ["", "-north", "_n", "a b", "a/b", "x" * 65, "ä", None])
async def test_an_id_is_an_identifier(stack: Stack, region_id: str | None) -> None:
    refused = await stack.admin("POST", "/regions", json={"id": region_id})
    assert (refused.status_code, refused.json()["field"]) == (422, "id")


async def test_an_id_is_used_once(stack: Stack) -> None:
    assert (await stack.admin("POST", "/regions", json={"id": "north"})).status_code == 201
    refused = await stack.admin("POST", "/regions", json={"id": "north"})
    assert (refused.status_code, refused.json()["reason"]) == (409, "REGION_ID_TAKEN")
