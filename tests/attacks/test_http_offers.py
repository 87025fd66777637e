"""An offer of another protocol, or a client that waits before it sends its body, loses no
request.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from tests.brokers import asking
from tests.http_server import ASGI, DIRECT, served, statuses
from tests.integration.registry_service.provisioning.test_device_handler import (
    device,
    known,
    line_to,
    registration,
    request,
)
from tests.stack import Stack

OFFERS = {
    # The headers of Java's HttpClient over plain HTTP.
    "h2c": (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    ),
    "websocket": (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "TLS": ("Connection: Upgrade", "Upgrade: TLS/1.0"),
    "several": ("Connection: keep-alive, upgrade", "Upgrade: foo/2, h2c, websocket"),
    "nothing": ("Connection: Upgrade",),
    "without connection": ("Upgrade: h2c",),
}
HALF = 37


def framed(head: bytes, body: bytes, *, is_chunked: bool) -> bytes:
    """`body` with its length, or in two chunks."""
    head = head.removesuffix(b"\r\n")
    if not is_chunked:
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    parts = [part for part in (body[:HALF], body[HALF:]) if part]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    async with served() as yielded:
        yield yielded


@pytest.mark.parametrize("path", [DIRECT, ASGI])
@pytest.mark.parametrize("offer", OFFERS)
async def test_an_offer_is_ignored_and_the_connection_goes_on(
    address: tuple[str, int], path: str, offer: str
) -> None:
    smuggled = request("GET", "/direct/refused")
    after = request("GET", path, "Connection: close")
    for body in (b"", smuggled, smuggled * 1_000):
        for is_chunked in (False, True):
            head = request("POST", path, *OFFERS[offer])
            whole = framed(head, body, is_chunked=is_chunked) + request("GET", path) + after
            for cuts in ((), (1,), (len(head),), (len(head) + 1, len(whole) - 5), (len(whole),)):
                reader, writer = await asyncio.open_connection(*address)
                async with asyncio.timeout(10):
                    for begin, end in zip((0, *cuts), (*cuts, len(whole)), strict=True):
                        writer.write(whole[begin:end])
                        await asyncio.sleep(0)
                    answers = await reader.read()
                writer.close()
                assert statuses(answers) == [200] * 3, (cuts, is_chunked)
                assert str(len(body)).encode() in answers


@pytest.mark.parametrize("offer", OFFERS)
async def test_a_device_and_a_broker_with_an_offer_are_served(stack: Stack, offer: str) -> None:
    async with line_to(stack.gateway_url) as line:
        made = await line.ask(registration(stack.provisioning_key, "d", *OFFERS[offer]))
        assert made.status == 201
        mqtt = json.loads(made.body)["mqtt"]
        head = request("POST", "/api/v1/device/register", *known(stack.provisioning_key))
        head = head.removesuffix(b"\r\n") + "\r\n".join(OFFERS[offer]).encode() + b"\r\n\r\n"
        again = await line.ask(framed(head, device("d"), is_chunked=True))
        assert again.status == 200
        token = f"Authorization: Bearer {stack.admin_token}"
        body = json.dumps({"id": "f", "name": "F"}).encode()
        made = await line.ask(
            request(
                *("POST", "/api/v1/fleets", token, "Content-Type: application/json"),
                *OFFERS[offer],
                body=body,
            )
        )
        assert made.status == 201
    async with asking(stack) as brokers:
        body = json.dumps(
            {"username": mqtt["username"], "password": mqtt["password"], "clientid": "d"}
        ).encode()
        async with line_to(brokers.url) as line:
            for is_chunked in (False, True):
                head = request(
                    *("POST", "/emqx/authenticate", f"Authorization: Bearer {brokers.secret}"),
                    *("Content-Type: application/json", *OFFERS[offer]),
                )
                answer = await line.ask(framed(head, body, is_chunked=is_chunked))
                assert json.loads(answer.body)["result"] == "allow"
            assert urlsplit(brokers.url).port


@pytest.mark.parametrize("path", [DIRECT, ASGI])
async def test_a_waiting_client_gets_100_continue_or_a_refusal(
    address: tuple[str, int], path: str
) -> None:
    def head(where: str, length: int) -> bytes:
        fields = ("Expect: 100-continue", f"Content-Length: {length}")
        return request("POST", where, *fields)

    async with line_to("http://{}:{}".format(*address)) as line:
        for _ in range(2):
            await line.send(head(path, 3))
            assert (await line.reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await line.send(b"abc")
            answer = await line.reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in answer
            rest = b"3" if b"content-length" in answer else b"1\r\n3\r\n0\r\n\r\n"
            assert await line.reader.readexactly(len(rest)) == rest
        # The server cannot know whether the body follows, so it reads no more on this connection.
        await line.send(head(f"{path}/refused", 3))
        answer = await line.reader.readuntil(b"\r\n\r\n")
        assert b" 401 " in answer
        assert b"connection: close" in answer
        await line.send(b"abc" + request("GET", path))
        assert statuses(await line.reader.read()) == []
