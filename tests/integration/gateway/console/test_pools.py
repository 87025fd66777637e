"""Pools at the console: settings and members, who would move, rebalancing, history and use."""

import re
from html import unescape
from typing import Any

from domain.slots import SLOTS
from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    acted,
    assert_escaped,
    everybody,
    fields_of,
)
from tests.stack import Stack

HOME = "/console/pools"


async def stored(stack: Stack, pool_id: int) -> Any:
    return (await stack.admin("GET", f"/pools/{pool_id}")).json()


def row(broker_id: int, weight: int = 100, priority: int = 1) -> dict[str, Any]:
    """A ticked row of the table of members."""
    return {
        f"member.{broker_id}": "true",
        f"weight.{broker_id}": str(weight),
        f"priority.{broker_id}": str(priority),
    }


def shown_in(page: str, path: str) -> dict[str, list[str]]:
    """The hidden fields of the form for settings."""
    found = fields_of(page, path)
    for name in ("rows", "previewed"):
        [value] = re.findall(rf'name="{name}" value="([^"]*)"', page)
        found[name] = [unescape(value)]
    return found


async def made(stack: Stack, person: Any, **fields: Any) -> str:
    """Makes a pool of the default broker; returns the path of its page."""
    given = {
        "name": "Europe",
        "policy": "weighted",
        "is_sticky": "true",
        "broker_ids": [str(stack.default_broker_id)],
    }
    answer = await person.post(f"{HOME}/new", **{**given, **fields})
    return str(answer.headers["location"])


async def test_a_pool_is_made_changed_and_deleted(stack: Stack) -> None:
    first, second = stack.default_broker_id, await stack.create_broker(HOSTILE)
    for n in range(8):
        await stack.register(f"device-{n}")
    async with everybody(stack) as people:
        operator = people["operator"]
        await operator.get(f"{HOME}/new")
        path = await made(stack, operator, name=HOSTILE, description=HOSTILE)
        pool_id = int(path.rpartition("/")[2])
        page = await operator.get(path)
        assert_escaped(page)
        typed: dict[str, Any] = {
            "name": "Europe",
            "description": "",
            "policy": "priority",
            "is_sticky": "true",
            **row(first),
            "add_id": str(second),
            "add_priority": "2",
        }
        # New members are shown in numbers first, and nothing is saved.
        look = await operator.post(path, 200, **{**shown_in(page, path), **typed})
        assert "Who would move" in look.text
        assert f"{SLOTS // 2:,}" in look.text
        assert "a home stay there" in look.text
        assert (await stored(stack, pool_id))["revision"] == 1
        assert_escaped(look.text)
        again: dict[str, Any] = {**typed, **row(second, 100, 2), "add_id": "", "add_priority": ""}
        await operator.post(path, **{**shown_in(look.text, path), **again})
        pool = await stored(stack, pool_id)
        assert (pool["name"], pool["policy"], pool["description"]) == ("Europe", "priority", "")
        assert pool["members"] == [
            {"broker_id": first, "weight": 100, "priority": 1},
            {"broker_id": second, "weight": 100, "priority": 2},
        ]
        # What does not move anything is saved at once.
        page = await operator.get(path)
        was = shown_in(page, path)
        settings: dict[str, Any] = {
            **typed,
            **row(first),
            **row(second, 100, 2),
            "add_id": "",
            "name": "Asia",
        }
        await operator.post(path, **{**was, **settings})
        assert (await stored(stack, pool_id))["name"] == "Asia"
        for person in (operator, people["viewer"]):
            for shown in (HOME, path, f"{path}/history", f"{path}/history/1"):
                assert_escaped(await person.get(shown))
        gone = await acted(operator, f"{path}/confirm/delete", f"{path}/delete")
        assert (gone.status_code, gone.headers["location"]) == (303, HOME)
        assert (await operator.see(path)).status_code == 404
        # The history of a deleted pool restores it.
        back = await acted(operator, f"{path}/history/2", f"{path}/history/2")
        assert back.status_code == 303, back.text
        assert len((await stored(stack, pool_id))["members"]) == 2


async def test_a_wrong_value_stays_in_the_form(stack: Stack) -> None:
    async with everybody(stack) as people:
        operator = people["operator"]
        path = await made(stack, operator)
        was = shown_in(await operator.get(path), path)
        typed: dict[str, Any] = {"name": "Typed", "policy": "nearest", "is_sticky": "true"}
        for weight in ("10001", "-1", "many"):
            wrong: dict[str, Any] = {f"member.{stack.default_broker_id}": "true", "add_id": ""}
            wrong |= {f"weight.{stack.default_broker_id}": weight}
            wrong |= {f"priority.{stack.default_broker_id}": "1"}
            refused = await operator.post(path, 422, **{**was, **typed, **wrong})
            assert f'value="{weight}"' in refused.text
            assert 'value="Typed"' in refused.text
        for odd in ODD:
            fields: dict[str, Any] = {
                "name": odd,
                "rows": odd,
                "add_id": odd,
                "previewed": odd,
                "policy": odd,
            }
            await operator.send(path, **{**was, **fields})
            await operator.send(f"{HOME}/new", name=odd, policy=odd, broker_ids=odd)
            await operator.send(f"{path}/rebalance", **{**was, "percent": odd})
            await operator.send(f"{path}/move", to=odd)


async def test_a_rebalancing_goes_in_waves_and_ends(stack: Stack) -> None:
    async with everybody(stack) as people:
        operator = people["operator"]
        path = await made(stack, operator)
        pool_id = int(path.rpartition("/")[2])
        for percent, wanted in (("10", 10), ("12,5 %", 12.5)):
            begun = await acted(operator, path, f"{path}/rebalance", percent=percent)
            assert begun.status_code == 303, begun.text
            assert (await stored(stack, pool_id))["rebalance_percent"] == wanted
        refused = await acted(operator, path, f"{path}/rebalance", percent="101")
        assert refused.status_code == 422
        ended = await acted(operator, path, f"{path}/rebalance/stop")
        assert ended.status_code == 303
        assert (await stored(stack, pool_id))["rebalance_percent"] is None


async def test_a_pool_is_the_default_and_then_not(stack: Stack) -> None:
    async with everybody(stack) as people:
        operator = people["operator"]
        path = await made(stack, operator)
        pool_id = int(path.rpartition("/")[2])
        for page, act, wanted in (
            ("default", "default", True),
            ("clear", "default/clear", False),
        ):
            done = await acted(operator, f"{path}/confirm/{page}", f"{path}/{act}")
            assert done.status_code == 303, done.text
            assert (await stored(stack, pool_id))["is_default"] is wanted


async def test_what_names_a_pool_is_moved(stack: Stack) -> None:
    async with everybody(stack) as people:
        operator = people["operator"]
        path = await made(stack, operator)
        pool_id = int(path.rpartition("/")[2])
        await stack.admin("POST", "/regions", json={"id": "north", "pool_id": pool_id})
        refused = await operator.post(f"{path}/move", 422, to="broker 99")
        assert "BROKER_UNKNOWN" in refused.text
        assert re.search(r"<dt>Regions</dt><dd class=\"num\">1</dd>", refused.text)
        asked = await operator.get(f"{path}/confirm/delete")
        assert "1 region" in asked
        moved = await operator.post(f"{path}/move", 200, to=f"broker {stack.default_broker_id}")
        assert "Everything was moved" in moved.text
        region = (await stack.admin("GET", "/regions/north")).json()
        assert region["mqtt_broker_id"] == stack.default_broker_id


async def test_both_versions_are_shown_if_another_person_was_first(stack: Stack) -> None:
    async with everybody(stack) as people:
        operator = people["operator"]
        path = await made(stack, operator)
        pool_id = int(path.rpartition("/")[2])
        was = shown_in(await operator.get(path), path)
        change = {"members": [{"broker_id": stack.default_broker_id, "weight": 7}]}
        await stack.admin("PATCH", f"/pools/{pool_id}", json=change)
        typed: dict[str, Any] = {"name": "Mine", "policy": "weighted", "is_sticky": "true"}
        mine: dict[str, Any] = {**was, **typed, **row(stack.default_broker_id)}
        lost = await operator.post(path, 412, **mine)
        assert "Another person has saved this pool meanwhile" in lost.text
        assert "weight 7" in lost.text
        assert 'value="Mine"' in lost.text
