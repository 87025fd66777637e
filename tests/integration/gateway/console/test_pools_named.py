"""Pools in the forms and on the pages of fleets, provisioning keys and devices."""

from tests.integration.gateway.console.people import acted, everybody, fields_of, text_of
from tests.pools import make_pool
from tests.stack import Stack


async def test_a_fleet_is_given_a_pool_in_place_of_its_broker(stack: Stack) -> None:
    pool = make_pool(stack, stack.default_broker_id)
    path = "/console/fleets/demo"
    async with everybody(stack) as people:
        operator = people["operator"]
        saved = await acted(operator, path, path, name="demo", pool_id=str(pool))
        assert saved.status_code == 303, saved.text
        assert (await stack.admin("GET", "/fleets/demo")).json()["pool_id"] == pool
        for shown in ("/console/fleets", path):
            assert f"pool {pool}" in text_of((await people["viewer"].see(shown)).text)
        # What was typed stays in the form beside the reason.
        named = {"name": "demo", "mqtt_broker_id": str(stack.default_broker_id)}
        both = await acted(operator, path, path, **named, pool_id=str(pool))
        assert both.status_code == 422
        assert "cannot be combined with pool_id" in both.text
        for wrong, word in (("999", "no such pool"), ("x", "pool_id")):
            refused = await acted(operator, path, path, name="demo", pool_id=wrong)
            assert refused.status_code == 422
            assert word in refused.text
            assert f'value="{wrong}"' in refused.text
        new = {"id": "new", "pool_id": str(pool)}
        assert (await operator.send("/console/fleets", **new)).status_code == 303
        cleared = await acted(operator, path, path, name="demo", pool_id="")
        assert cleared.status_code == 303
        assert (await stack.admin("GET", "/fleets/demo")).json()["pool_id"] is None


async def test_a_lost_race_shows_the_pools(stack: Stack) -> None:
    pool = make_pool(stack, stack.default_broker_id)
    path = "/console/fleets/demo"
    async with everybody(stack) as people:
        operator = people["operator"]
        seen = fields_of((await operator.see(path)).text, path)
        await stack.admin("PATCH", "/fleets/demo", json={"pool_id": pool})
        lost = await operator.send(path, **seen, name="mine")
        assert lost.status_code == 412
        assert f"Pool empty → to {pool}" in text_of(lost.text)


async def test_a_key_is_given_a_pool(stack: Stack) -> None:
    pool = make_pool(stack, stack.default_broker_id)
    home = "/console/provisioning-keys"
    async with everybody(stack) as people:
        operator = people["operator"]
        made = await operator.send(home, fleet_id="demo", default_pool_id=str(pool))
        assert made.status_code == 200, made.text
        keys = (await stack.admin("GET", "/provisioning-keys")).json()["items"]
        [key] = [key for key in keys if key["default_pool_id"] == pool]
        path = f"{home}/{key['id']}"
        assert f"pool {pool}" in text_of((await people["viewer"].see(path)).text)
        broker = str(stack.default_broker_id)
        named = {"default_broker_id": broker, "default_pool_id": str(pool)}
        assert (await acted(operator, path, path, **named)).status_code == 422
        swapped = await acted(operator, path, path, **{**named, "default_pool_id": ""})
        assert swapped.status_code == 303


async def test_a_device_is_given_a_pool_and_the_change_is_undone(stack: Stack) -> None:
    pool = make_pool(stack, stack.default_broker_id)
    await stack.register("one")
    stack.database.execute("UPDATE devices SET home_broker_id = %s", stack.default_broker_id)
    path = "/console/devices/one"
    async with everybody(stack) as people:
        operator = people["operator"]
        saved = await acted(operator, path, path, pool_id=str(pool))
        assert saved.status_code == 303, saved.text
        page = (await operator.see(saved.headers["location"])).text
        assert f"pool_id none → pool {pool}" in text_of(page)
        assert f"In pool {pool}, which serves it." in text_of(page)
        assert "Home in a pool Local Broker" in text_of(page)
        listed = await operator.see("/console/devices", pool_id=str(pool))
        assert f"Pool: {pool}" in text_of(listed.text)
        assert f"pool {pool}" in text_of(listed.text)
        unknown = await acted(operator, path, path, pool_id="999")
        assert (unknown.status_code, "no such pool" in unknown.text) == (422, True)
        undone = await acted(operator, path, path, pool_id="")
        assert undone.status_code == 303
        device = (await stack.admin("GET", "/devices/one")).json()
        assert (device["pool_id"], device["mqtt_broker_id"]) == (None, None)
