"""The devices at the console: found, explained, changed and undone, and what each person may do."""

import json
import re
from html import unescape
from urllib.parse import parse_qs, urlencode, urlsplit

from gateway.console.devices import ON_A_PAGE
from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    acted,
    assert_escaped,
    everybody,
    fields_of,
)
from tests.stack import Stack

HOME = "/console/devices"
COUNT = "/console/device-count"
FILTERS = "/console/device-filters"
ONE = f"{HOME}/test-device-123"


async def test_a_device_is_found_and_pinned_and_the_pin_is_undone(stack: Stack) -> None:
    other_id = await stack.create_broker(HOSTILE, host="other.example.com")
    for number in range(3):
        await stack.register(f"press-{number}", deviceName=f"Press {number}")
    assert (await stack.register(deviceName=HOSTILE)).status_code == 201
    async with everybody(stack) as people:
        operator = people["operator"]
        # Search as a person types: the uuid, or the name in any case.
        for text, count in (("press-", 3), ("PRESS 1", 1), ("nothing", 0), ("%", 0)):
            found = await operator.see(HOME, search=text)
            assert found.text.count('<td class="first">') == count, text
        part = await operator.client.get(
            HOME, params={"search": "press-1"}, headers={"HX-Request": "true"}
        )
        assert 'id="devices"' in part.text
        assert "<html" not in part.text
        assert 'name="search"' not in part.text

        page = await operator.see(ONE)
        assert_escaped(page.text)
        assert "is the default" in page.text
        assert "Registered" in page.text
        saved = await acted(operator, ONE, ONE, mqtt_broker_id=str(other_id))
        assert saved.status_code == 303
        after = await operator.see(saved.headers["location"])
        assert_escaped(after.text)
        assert "Undo" in after.text
        # The device gets the other broker, and the page says why.
        assert "other.example.com" in (await stack.connection("test-device-123")).text
        assert "Pinned to" in after.text
        was = json.loads(parse_qs(urlsplit(saved.headers["location"]).query)["was"][0])
        assert was == {"mqtt_broker_id": None}
        undone = await acted(operator, ONE, ONE, mqtt_broker_id="")
        assert undone.status_code == 303
        device = (await stack.admin("GET", "/devices/test-device-123")).json()
        assert device["mqtt_broker_id"] is None


async def test_each_act_works_and_is_refused_without_the_right(stack: Stack) -> None:
    assert (await stack.register()).status_code == 201
    row = "SELECT * FROM devices"
    acts = (
        ("", {"is_active": "false"}, "is_active", False),
        ("", {"is_active": "true"}, "is_active", True),
        ("", {"reprovisioning_allowed": "true"}, "reprovisioning_allowed", True),
        ("", {"region": "north"}, "region", "north"),
        ("", {"region": ""}, "region", ""),
        (
            "",
            {"latitude": "52.5", "longitude": "13"},
            "location",
            {"latitude": 52.5, "longitude": 13.0},
        ),
        ("", {"latitude": "", "longitude": ""}, "location", None),
        ("", {"device_name": HOSTILE, "device_type": "pi"}, "device_name", HOSTILE),
    )
    async with everybody(stack) as people:
        before = stack.database.execute(row)
        for name in ("viewer", "elsewhere"):
            for path, fields, _, _ in acts:
                refused = await people[name].send(ONE + path, **fields)
                assert refused.status_code == (403 if name == "viewer" else 404), (name, fields)
            for path in ("/revoke", "/delete"):
                refused = await people[name].send(ONE + path, uuid="test-device-123")
                assert refused.status_code in (403, 404)
                assert (await people[name].see(ONE + path)).status_code in (403, 404)
        assert stack.database.execute(row) == before
        assert (await people["elsewhere"].see(ONE)).status_code == 404
        assert ONE not in (await people["elsewhere"].see(HOME)).text
        shown = await people["viewer"].see(ONE)
        assert shown.status_code == 200
        assert 'method="post" action="/console/devices' not in shown.text

        for name in ("demo", "operator", "admin"):
            for path, fields, field, value in acts:
                changed = await acted(people[name], ONE, ONE + path, **fields)
                assert changed.status_code == 303, (name, fields)
                assert (await people[name].see(changed.headers["location"])).status_code == 200
                device = (await stack.admin("GET", "/devices/test-device-123")).json()
                assert device[field] == value
        operator = people["demo"]
        assert "at once" in (await operator.see(f"{ONE}/revoke")).text
        [(hash_before,)] = stack.database.execute("SELECT mqtt_password_hash FROM devices")
        assert (await operator.send(f"{ONE}/revoke")).status_code == 303
        assert stack.database.execute("SELECT mqtt_password_hash FROM devices") != [(hash_before,)]
        wrong = await operator.send(f"{ONE}/delete", uuid="test-device-12")
        assert wrong.status_code == 422
        assert "is not the uuid of this device" in wrong.text
        deleted = await acted(operator, f"{ONE}/delete", f"{ONE}/delete", uuid="test-device-123")
        assert deleted.status_code == 303
        assert "was deleted" in (await operator.see(deleted.headers["location"])).text
        assert stack.database.execute("SELECT count(*) FROM devices") == [(0,)]


async def test_a_lost_race_shows_both_versions(stack: Stack) -> None:
    first, second = await stack.create_broker("First"), await stack.create_broker("Second")
    assert (await stack.register()).status_code == 201
    async with everybody(stack) as people:
        operator = people["operator"]
        seen = fields_of(await operator.get(ONE), ONE)
        change = {"mqtt_broker_id": first, "region": "north"}
        await stack.admin("PATCH", "/devices/test-device-123", json=change)
        lost = await operator.post(ONE, 412, **seen, mqtt_broker_id=str(second))
        assert "Another person has saved this device meanwhile." in lost.text
        for said in ("<del>empty</del>", "<ins>First</ins>", "yours: Second", "<ins>north</ins>"):
            assert said in lost.text
        deletion = f"{ONE}/delete"
        await operator.post(deletion, 412, **seen, uuid="test-device-123")
        device = (await stack.admin("GET", "/devices/test-device-123")).json()
        assert (device["mqtt_broker_id"], device["region"]) == (first, "north")
        # The device's own requests are no changes for a person.
        again = fields_of(lost.text, ONE)
        assert (await stack.register()).status_code == 200
        await operator.post(ONE, 303, **again, mqtt_broker_id=str(second))
        device = (await stack.admin("GET", "/devices/test-device-123")).json()
        assert (device["mqtt_broker_id"], device["region"]) == (second, "north")


async def test_filters_count_and_exclude(stack: Stack) -> None:
    await stack.create_fleet("kilns")
    key = await stack.create_key(fleet_id="kilns")
    for number in range(3):
        await stack.register(f"demo-{number}")
    await stack.register("kiln-0", key=key, deviceType=HOSTILE)
    async with everybody(stack) as people:
        viewer = people["viewer"]
        page = await viewer.see(HOME)
        assert_escaped(page.text)
        assert "<b>4 devices</b>" in page.text
        assert f'data-part="{FILTERS}?"' in page.text
        filters = await viewer.see(FILTERS)
        assert_escaped(filters.text)
        # Every link of the filters is a list that can be seen, and says what it took.
        links = {unescape(link) for link in _links(filters.text)}
        assert any("not_fleet_id=kilns" in link for link in links)
        for link in links:
            listed = await viewer.see(link)
            assert listed.status_code == 200, link
            assert "<b>" in (await viewer.see(link.replace(HOME, COUNT))).text
            assert link.replace(HOME, FILTERS) in unescape(listed.text)
        others = await viewer.see(f"{HOME}?not_fleet_id=demo")
        assert "<b>1 device</b>" in others.text
        assert "Fleet: not demo" in others.text
        assert "kiln-0" in others.text
        assert 'href="/console/jobs/new' not in others.text
        assert "Move all" in (await people["operator"].see(COUNT)).text
        for path in (HOME, FILTERS, COUNT):
            restricted = await people["demo"].see(path)
            assert "<b>3 devices</b>" in restricted.text
            assert "kiln" not in restricted.text
            assert 'href="/console/jobs/new' not in (await viewer.see(path)).text


async def test_what_a_page_does_not_show_is_counted_by_a_part(stack: Stack) -> None:
    for number in range(ON_A_PAGE + 1):
        assert (await stack.register(f"many-{number:02}")).status_code == 201
    async with everybody(stack) as people:
        operator = people["operator"]
        query = {"search": "many-", "not_region": HOSTILE}
        conditions = urlencode(sorted(query.items()))
        listed = unescape((await operator.see(HOME, **query)).text)
        counted = unescape((await operator.see(COUNT, **query)).text)
        # What the list leaves open is in the elements with the same ids.
        for name, text in (("count", "<b>51 devices</b>"), ("all", "51")):
            start = f'<span id="{name}?{conditions}"'
            assert f'{start} data-part="{COUNT}?{conditions}"' in listed
            assert f"{start}>{text}</span>" in counted
        assert "51 devices" not in listed
        assert ">51<" not in listed
        assert (
            f'id="facets" class="cols" tabindex="-1" data-part="{FILTERS}?{conditions}"' in listed
        )
        assert 'id="facets"' in (await operator.see(FILTERS, **query)).text
        # The last page does not know how many come before it.
        last = re.findall(r'href="([^"]*cursor=[^"]*)"', listed)
        assert f'data-part="{COUNT}?{conditions}"' in unescape((await operator.see(last[0])).text)


def _links(page: str) -> list[str]:
    return [part.partition('"')[0] for part in page.split('href="') if part.startswith(HOME + "?")]


async def test_odd_input_is_answered_by_a_page(stack: Stack) -> None:
    await stack.register()
    async with everybody(stack) as people:
        operator = people["operator"]
        for odd in ODD:
            for name in (
                "mqtt_broker_id",
                "pool_id",
                "is_active",
                "device_name",
                "region",
                "latitude",
            ):
                answer = await acted(operator, ONE, ONE, **{name: odd})
                assert answer.status_code in (303, 422), (name, odd)
            assert (await operator.send(f"{ONE}/delete", uuid=odd)).status_code == 422
            short = odd[:2_000]
            for name in ("search", "fleet_id", "told_broker_id", "is_active", "cursor", "was"):
                for path in (HOME, ONE, COUNT, FILTERS):
                    answer = await operator.see(path, **{name: short})
                    assert answer.status_code in (200, 400, 422), (path, name, odd)
        for path in ("/nothing", "/%00", "/%3Cscript%3E", "/" + "x" * 300):
            assert (await operator.see(HOME + path)).status_code in (400, 404, 422), path
            answer = await operator.send(HOME + path, is_active="false")
            assert answer.status_code in (400, 404, 422), path


async def test_what_a_device_reports_is_beside_what_it_was_told(stack: Stack) -> None:
    url = (await stack.register()).json()["mqtt"]["broker"]
    async with everybody(stack) as people:
        viewer = people["viewer"]
        assert "does not report" in (await viewer.see(ONE)).text
        for state, broker, error in (
            ("connected", url, None),
            ("failed", "mqtt://elsewhere.example.com", HOSTILE[:256]),
        ):
            answer = await stack.http.post(
                "/api/v1/device/test-device-123/mqtt/report",
                json={"broker": broker, "state": state, "error": error},
                headers={"Authorization": "Bearer test-api-key"},
            )
            assert answer.status_code == 200, answer.text
        page = await viewer.see(ONE)
        assert_escaped(page.text)
        assert "a broker that it was not told" in page.text
        assert "does not report" not in page.text
        counts = unescape((await viewer.see("/console/brokers/1/devices")).text)
        assert '<dt>Reach it</dt><dd class="num">1</dd>' in counts
        assert '<dt>Cannot reach it</dt><dd class="num">0' in counts
