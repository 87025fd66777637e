"""Pins, fleets and keys may name only brokers that their fleet may use, whichever API sets them."""

from typing import Any

import httpx2
import psycopg

from tests.integration.gateway.test_gateway_http import assert_problem
from tests.isolated import customer, made
from tests.stack import Stack
from tests.stored import Stored


async def test_a_change_that_names_a_broker_outside_the_allowance_is_refused(stack: Stack) -> None:
    acme = await customer(stack, "acme")
    other = stack.default_broker_id
    uuid, key_id = acme.things["device"], acme.things["key"]
    expected = {"uuid": "acme-2", "fleet_id": "acme", "mqtt_broker_id": other}
    attempts: list[tuple[str, str, dict[str, Any], str]] = [
        ("PUT", f"/devices/{uuid}", {"mqtt_broker_id": other}, "mqtt_broker_id"),
        ("PATCH", "/fleets/acme", {"mqtt_broker_id": other}, "mqtt_broker_id"),
        # The allowance would no longer include the fleet's own broker.
        ("PATCH", "/fleets/acme", {"allowed_broker_ids": [other]}, "allowed_broker_ids"),
        ("PATCH", "/fleets/acme", {"allowed_broker_ids": []}, "allowed_broker_ids"),
        (
            *("POST", "/fleets"),
            {"id": "new", "mqtt_broker_id": other, "allowed_broker_ids": []},
            "mqtt_broker_id",
        ),
        (
            *("POST", "/provisioning-keys"),
            {"fleet_id": "acme", "default_broker_id": other},
            "default_broker_id",
        ),
        (
            *("PATCH", f"/provisioning-keys/{key_id}"),
            {"default_broker_id": other},
            "default_broker_id",
        ),
        ("POST", "/expected-devices", expected, "mqtt_broker_id"),
    ]
    with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
        stored = Stored(connection)
        before = stored.now()
        for method, path, body, field in attempts:
            answer = await stack.admin(method, path, json=body)
            assert_problem(answer, 409, "BROKER_NOT_ALLOWED", field)
        batch = await stack.admin("POST", "/expected-devices/batch", json=[expected])
        assert [one["reason"] for one in batch.json()["refused"]] == ["BROKER_NOT_ALLOWED"]
        assert stored.now() == before


async def test_changes_within_the_allowance_are_accepted(stack: Stack) -> None:
    acme = await customer(stack, "acme")
    own, other = acme.things["broker"], stack.default_broker_id
    # One change may set both; the result of both is checked.
    both = {"mqtt_broker_id": other, "allowed_broker_ids": [own, other]}
    assert (await stack.admin("PATCH", "/fleets/acme", json=both)).status_code == 200
    for broker_id in (own, other, None):
        pin = {"mqtt_broker_id": broker_id}
        assert (await stack.admin("PUT", "/devices/acme-1", json=pin)).status_code == 200
    key = {"fleet_id": "acme", "default_broker_id": own}
    await made(stack, "/provisioning-keys", key)
    # The name can be changed even where SQL has made the rest inconsistent.
    stack.database.execute("DELETE FROM fleet_brokers WHERE broker_id = %s", other)
    renamed = await stack.admin("PATCH", "/fleets/acme", json={"name": "Acme"})
    assert (renamed.status_code, renamed.json()["mqtt_broker_id"]) == (200, other)
    free = {"allowed_broker_ids": None}
    assert (await stack.admin("PATCH", "/fleets/acme", json=free)).status_code == 200


async def test_a_token_of_two_fleets_learns_which_broker_each_fleet_may_use(
    stack: Stack,
) -> None:
    """A broker that neither fleet may use is unknown; one for the other is not allowed."""
    acme, sister = await customer(stack, "acme"), await customer(stack, "sister")
    rival = await customer(stack, "rival")
    body = {"name": "both", "role": "operator", "fleet_ids": ["acme", "sister"]}
    headers = {"Authorization": f"Bearer {(await made(stack, '/tokens', body))['token']}"}
    for customers, reason in ((sister, "BROKER_NOT_ALLOWED"), (rival, "BROKER_UNKNOWN")):
        pin = {"mqtt_broker_id": customers.things["broker"]}
        refused = await stack.http.put("/api/v1/devices/acme-1", json=pin, headers=headers)
        assert refused.json()["reason"] == reason
    listed = await stack.http.get("/api/v1/brokers", headers=headers)
    names = [broker["name"] for broker in listed.json()["items"]]
    assert names == ["acme broker", "sister broker"]
    # A token for a fleet that may use any broker sees all of them.
    free = {"allowed_broker_ids": None}
    await stack.admin("PATCH", f"/fleets/{acme.things['fleet']}", json=free)
    listed = await stack.http.get("/api/v1/brokers", headers=headers)
    assert len(listed.json()["items"]) == 4


async def test_an_explanation_names_no_broker_that_the_token_does_not_see(stack: Stack) -> None:
    acme = await customer(stack, "acme")
    await stack.admin("PATCH", "/fleets/acme", json={"mqtt_broker_id": None})
    headers = {"Authorization": f"Bearer {acme.token}"}
    answer = await stack.http.get("/api/v1/devices/acme-1/broker", headers=headers)
    found = answer.json()
    assert (found["source"], found["url"]) == (None, None)
    # There is a default broker, which this fleet may not use.
    reasons = [step["reason"] for step in found["steps"]]
    assert reasons[-2:] == ["NO_DEFAULT", "FLEET_IS_RESTRICTED"]
    assert {step["mqtt_broker_id"] for step in found["steps"]} == {None}
    full = (await stack.admin("GET", "/devices/acme-1/broker")).json()
    assert full["steps"][-2]["mqtt_broker_id"] == stack.default_broker_id


async def test_a_restricted_token_cannot_change_its_fleets_allowance(stack: Stack) -> None:
    acme = await customer(stack, "acme")
    headers = {"Authorization": f"Bearer {acme.token}"}

    async def allow(fleet_id: str, broker_ids: list[int] | None) -> httpx2.Response:
        change = {"allowed_broker_ids": broker_ids}
        return await stack.http.patch(f"/api/v1/fleets/{fleet_id}", json=change, headers=headers)

    own = [acme.things["broker"]]
    for broker_ids in (None, [], [stack.default_broker_id], [*own, stack.default_broker_id]):
        answer = await allow("acme", broker_ids)
        assert_problem(answer, 403, "FORBIDDEN", "allowed_broker_ids")
    # Writing the allowance as it was read is accepted; of other fleets nothing is revealed.
    assert (await allow("acme", own)).status_code == 200
    for broker_ids in (None, own):
        assert_problem(await allow("nobody", broker_ids), 404, "FLEET_NOT_FOUND")
