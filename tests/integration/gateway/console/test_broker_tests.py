"""Tests of brokers over HTTP and at the console: who may, of what, and what is sent when."""

import asyncio
import json
from typing import Any

import httpx2

from chassis.trust import Access
from tests import hostile
from tests.integration.gateway.console.people import entered, text_of
from tests.integration.gateway.console.test_brokers import fill_in, form_fields
from tests.integration.gateway.test_gateway_http import assert_problem
from tests.stack import PATIENCE_S, Stack

PASSWORD = "s3cret-Passw0rd-of-the-login"
CONNACK = b"\x20\x02\x00\x00"


def lines_of(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


class Recorded:
    """A port that answers a login, and keeps what it was sent."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received.append(await reader.read(1_000))
        await self.may_answer.wait()
        writer.write(CONNACK)
        await writer.drain()
        await reader.read()


async def test_a_broker_is_tested_as_it_is_and_as_it_would_be(stack: Stack) -> None:
    port = Recorded()
    async with hostile.serving(port) as listens:
        made = await stack.create_broker("hall", host="127.0.0.1", port=1, username="u")
        path = f"/brokers/{made}/test"
        before = (await stack.admin("GET", f"/brokers/{made}")).json()
        *steps, end = lines_of(await stack.admin("POST", path, json={}))
        assert [step["state"] for step in steps] == ["ok", "failed", *["skipped"] * 3]
        assert steps[1]["reason"] == "PORT_CLOSED"
        assert end == {"has_passed": False}
        changes = {"port": listens, "password": PASSWORD, "name": "Default"}
        *steps, end = lines_of(await stack.admin("POST", path, json=changes))
        assert [step["state"] for step in steps[:4]] == ["ok", "ok", "skipped", "ok"]
        new = {"name": "hall", "host": "127.0.0.1", "port": listens}
        *steps, end = lines_of(await stack.admin("POST", "/brokers/test", json=new))
        assert end == {"has_passed": True}
        assert (await stack.admin("GET", f"/brokers/{made}")).json() == before
        assert len((await stack.admin("GET", "/brokers")).json()["items"]) == 2
    assert any(PASSWORD.encode() in received for received in port.received)


async def test_a_password_is_sent_only_to_its_destination(stack: Stack) -> None:
    port = Recorded()
    login = {"username": "u", "password": PASSWORD}
    async with hostile.serving(port) as listens:
        other = await stack.create_broker("other", host="localhost", port=listens, **login)
        *steps, _ = lines_of(
            await stack.admin("POST", f"/brokers/{other}/test", json={"host": "127.0.0.1"})
        )
        assert (steps[3]["state"], steps[3]["reason"]) == ("failed", "PASSWORD_UNUSABLE")
        # The login of a management API is no login for MQTT.
        managed = {"management": "emqx", "management_url": "https://emqx.example.com:18083"}
        emqx = await stack.create_broker("emqx", host="127.0.0.1", port=listens, **login, **managed)
        *steps, _ = lines_of(await stack.admin("POST", f"/brokers/{emqx}/test", json={}))
        assert [step["state"] for step in steps] == ["ok", "ok", "skipped", "ok", "skipped"]
    assert port.received
    assert not any(PASSWORD.encode() in received for received in port.received)


async def test_a_step_is_sent_when_it_has_ended_and_a_broker_has_one_test(stack: Stack) -> None:
    port = Recorded()
    port.may_answer.clear()
    async with hostile.serving(port) as listens:
        made = await stack.create_broker("hall", host="127.0.0.1", port=listens)
        url, headers = f"/api/v1/brokers/{made}/test", await bearer_of(stack)
        async with stack.http.stream("POST", url, json={}, headers=headers) as answer:
            lines = answer.aiter_lines()
            found = [json.loads(await anext(lines))["step"] for _ in range(3)]
            assert found == ["resolve", "connect", "tls"]
            second = await stack.admin("POST", f"/brokers/{made}/test", json={})
            assert_problem(second, 409, "TEST_UNDER_WAY")
            port.may_answer.set()
            assert json.loads([line async for line in lines][-1]) == {"has_passed": True}
        # A client that leaves ends its test.
        port.may_answer.clear()
        async with stack.http.stream("POST", url, json={}, headers=headers) as answer:
            await anext(answer.aiter_lines())
        port.may_answer.set()
        async with asyncio.timeout(PATIENCE_S):
            while (await stack.admin("POST", f"/brokers/{made}/test", json={})).status_code == 409:
                await asyncio.sleep(0.05)


async def bearer_of(stack: Stack) -> dict[str, str]:
    return {"Authorization": f"Bearer {stack.admin_token}"}


async def test_the_console_shows_the_steps_of_what_is_in_the_form(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    async with hostile.serving(Recorded()) as listens:
        made = await stack.create_broker("hall", host="127.0.0.1", port=1)
        visit = await entered(browser, await stack.token(Access.OPERATOR))
        path = f"/console/brokers/{made}"
        page = await visit.get(path)
        assert f'formaction="{path}/test" formtarget="_blank"' in page
        as_it_is = text_of((await visit.post(f"{path}/test", 200)).text)
        assert "Connect to the port Failed" in as_it_is
        assert "Devices cannot connect like this." in as_it_is
        fields = form_fields(page) | {"port": str(listens)}
        changed = text_of((await fill_in(visit, f"{path}/test", fields)).text)
        assert "with 1 change that is not saved" in changed
        assert "Devices can connect as this test did." in changed
        fields |= {"host": "<i>x</i>"}
        refused = await fill_in(visit, f"{path}/test", fields)
        assert refused.status_code == 422
        assert "<i>x" not in refused.text
        new = form_fields(await visit.get("/console/brokers/new"))
        new |= {"protocol": "mqtt", "host": "127.0.0.1", "port": str(listens)}
        made_now = await fill_in(visit, "/console/brokers/test", new)
        assert made_now.status_code == 200, text_of(made_now.text)
        assert "Devices can connect" in text_of(made_now.text)
        viewer = await entered(browser, await stack.token(Access.VIEWER))
        assert "Test connection" not in await viewer.get(path)
        await viewer.post(f"{path}/test", 403)
