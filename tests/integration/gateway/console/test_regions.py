"""Regions at the console: the list, a new one, its settings, and its end."""

from typing import Any

from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    acted,
    assert_escaped,
    everybody,
    fields_of,
)
from tests.stack import Stack

HOME = "/console/regions"
PATH = f"{HOME}/north"
GIVEN: dict[str, Any] = {
    "id": "north",
    "name": HOSTILE,
    "latitude": "59,3",
    "longitude": "-18.1°",
    "serves": "",
}


async def stored(stack: Stack) -> Any:
    return (await stack.admin("GET", "/regions/north")).json()


async def test_a_region_is_made_changed_and_deleted(stack: Stack) -> None:
    pool = (await stack.admin("POST", "/pools", json={"name": HOSTILE})).json()
    async with everybody(stack) as people:
        operator = people["operator"]
        await operator.get(f"{HOME}/-/new")
        made = await operator.post(HOME, **GIVEN)
        assert made.headers["location"] == PATH
        region = await stored(stack)
        assert (region["latitude"], region["longitude"]) == (59.3, -18.1)
        page = await operator.get(PATH)
        typed: dict[str, Any] = {
            "name": "North",
            "latitude": "",
            "longitude": "",
            "serves": f"pool {pool['id']}",
        }
        await operator.post(PATH, **{**fields_of(page, PATH), **typed})
        changed = await stored(stack)
        assert (changed["latitude"], changed["pool_id"]) == (None, pool["id"])
        for person in (operator, people["viewer"]):
            for shown in (HOME, PATH):
                assert_escaped(await person.get(shown))
        was = fields_of(await operator.get(PATH), PATH)
        served: dict[str, Any] = {**typed, "serves": f"broker {stack.default_broker_id}"}
        await operator.post(PATH, **{**was, **served})
        assert (await stored(stack))["mqtt_broker_id"] == stack.default_broker_id
        # The same form again: another version was saved since.
        lost = await operator.post(PATH, 412, **{**was, **served, "name": "Mine"})
        assert "Another person has saved this region meanwhile" in lost.text
        gone = await acted(operator, f"{PATH}/delete", f"{PATH}/delete")
        assert (gone.status_code, gone.headers["location"]) == (303, HOME)
        assert (await operator.see(PATH)).status_code == 404


async def test_a_wrong_value_stays_in_the_form(stack: Stack) -> None:
    async with everybody(stack) as people:
        operator = people["operator"]
        await operator.post(HOME, **GIVEN)
        assert "REGION_ID_TAKEN" in (await operator.post(HOME, 409, **GIVEN)).text
        was = fields_of(await operator.get(PATH), PATH)
        for name, value in (
            ("latitude", "91"),
            ("longitude", "far"),
            ("latitude", ""),
            ("serves", "broker 99"),
            ("serves", "pool 99"),
        ):
            shown: dict[str, Any] = {
                "name": "Typed",
                "latitude": "59.3",
                "longitude": "-18.1",
                "serves": "",
            }
            refused = await operator.post(PATH, 422, **{**was, **shown, name: value})
            assert 'value="Typed"' in refused.text
        for odd in ODD:
            fields: dict[str, Any] = {"name": odd, "latitude": odd, "longitude": odd, "serves": odd}
            await operator.send(PATH, **{**was, **fields})
            await operator.send(HOME, id=odd, **fields)
