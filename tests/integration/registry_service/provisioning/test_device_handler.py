"""Devices' own path through the HTTP server, byte by byte: no framework is involved."""

import asyncio
import contextlib
import itertools
import json
import logging
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import structlog
import trustme

from gateway.__main__ import running
from tests.integration.gateway.test_gateway_faults import staged
from tests.stack import Stack

PATIENCE_S = 5.0
REGISTER = "/api/v1/device/register"
BODILESS = (100, 204, 304)
# Header fields that differ between two answers to the same request.
VARYING = {"date", "x-request-id"}


@dataclass(frozen=True)
class Answer:
    """One answer as it was received; the names of its headers are in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the only header with this name; None if there is none."""
        values = [value for known, value in self.headers if known == name]
        assert len(values) <= 1, self.headers
        return values[0] if values else None

    @property
    def request_id(self) -> str:
        return self.header("x-request-id") or ""

    @property
    def reason(self) -> str:
        return str(json.loads(self.body)["reason"])


class Line:
    """A connection on which exact bytes are sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        """Sends each part by itself."""
        async with asyncio.timeout(PATIENCE_S):
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()

    async def answer(self, *, to: str = "GET") -> Answer:
        """The next answer; it has no body if `to`, the request's method, is HEAD."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            version, status, _ = first.split(" ", 2)
            assert version == "HTTP/1.1"
            pairs = [line.split(": ", 1) for line in lines]
            headers = [(name.lower(), value) for name, value in pairs]
            answer = Answer(int(status), headers, b"")
            if to == "HEAD" or answer.status in BODILESS:
                return answer
            length = int(answer.header("content-length") or "")
            return Answer(int(status), headers, await self.reader.readexactly(length))

    async def ask(self, request: bytes, *, to: str = "GET") -> Answer:
        await self.send(request)
        return await self.answer(to=to)

    async def assert_it_ends(self) -> None:
        """The other side closes the connection without sending anything more."""
        async with asyncio.timeout(PATIENCE_S):
            assert await self.reader.read() == b""

    def break_off(self) -> None:
        """Resets the connection, as when a device loses its power."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def line_to(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Line]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def line(stack: Stack) -> AsyncIterator[Line]:
    async with line_to(stack.gateway_url) as open_line:
        yield open_line


def request(
    method: str, path: str, *headers: str, body: bytes = b"", version: str = "1.1"
) -> bytes:
    """The bytes of a request; it has a Content-Length if it has a body."""
    lines = [f"{method} {path} HTTP/{version}", "Host: h", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "".join(f"{one}\r\n" for one in lines).encode("latin-1") + b"\r\n" + body


def device(uuid: str) -> bytes:
    return json.dumps(
        {"uuid": uuid, "deviceName": "n", "deviceType": "t", "deviceApiKey": "test-api-key"}
    ).encode()


def known(key: str) -> tuple[str, str]:
    """The headers that a registration needs."""
    return f"Authorization: Bearer {key}", "Content-Type: application/json"


def registration(key: str, uuid: str, *headers: str, version: str = "1.1") -> bytes:
    return request("POST", REGISTER, *known(key), *headers, body=device(uuid), version=version)


def connection(uuid: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    own = "Authorization: Bearer test-api-key"
    return request(method, f"/api/v1/device/{uuid}/mqtt", own, *headers, version=version)


def uuids_in(stack: Stack) -> set[str]:
    return {uuid for (uuid,) in stack.database.execute("SELECT uuid FROM devices")}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.contextmanager
def nothing_goes_wrong(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Checks that the block logs no warnings and no errors."""
    caplog.clear()
    with structlog.testing.capture_logs() as ours:
        yield
    assert [entry for entry in ours if entry["log_level"] not in ("debug", "info")] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_connection_serves_many_requests(stack: Stack, line: Line) -> None:
    for number in range(25):
        made = await line.ask(registration(stack.provisioning_key, f"d{number}"))
        asked = await line.ask(connection(f"d{number}"))
        alive = await line.ask(request("GET", "/healthz"))
        assert (made.status, asked.status, alive.status) == (201, 200, 200)
        assert json.loads(made.body)["uuid"] == f"d{number}"
        assert json.loads(asked.body)["username"] == f"device_d{number}"
        assert [answer.header("connection") for answer in (made, asked, alive)] == [None] * 3
    assert len(uuids_in(stack)) == 25


async def test_pipelined_requests_are_answered_in_order(stack: Stack, line: Line) -> None:
    key = stack.provisioning_key
    alive = request("GET", "/healthz", "X-Request-Id: alive")
    a, b = (registration(key, uuid, f"X-Request-Id: {uuid}") for uuid in ("a", "b"))
    own = connection("a", "X-Request-Id: own")
    refused = request("GET", REGISTER, "X-Request-Id: refused")
    everything = {"alive": alive, "a": a, "b": b, "own": own, "refused": refused}
    statuses = {"alive": 200, "refused": 405, "own": 200}
    # The first pairs are in both orders, also before there is any device.
    pairs = [["a", "b"], ["b", "a"], ["a", "alive"], ["alive", "a"], ["own", "a"], ["refused", "b"]]
    crowds = [random.Random(seed).choices(list(everything), k=12) for seed in range(10)]  # noqa: S311
    for names in pairs + crowds:
        await line.send(b"".join(everything[name] for name in names))
        for name in names:
            answer = await line.answer()
            assert answer.request_id == name, names
            assert answer.status in ({statuses[name]} if name in statuses else {200, 201}), names
            if name in ("a", "b"):
                assert json.loads(answer.body)["uuid"] == name
    assert uuids_in(stack) == {"a", "b"}


async def test_a_pipeline_may_be_long(stack: Stack, line: Line) -> None:
    """Each refusal happens while the answer before it is being sent."""
    refused = request("GET", "/api/v1/device/d/mqtt")
    await line.send(registration(stack.provisioning_key, "d") + refused * 1_000 + connection("d"))
    answers = [await line.answer() for _ in range(1_002)]
    assert [answer.status for answer in answers] == [201, *[401] * 1_000, 200]


async def test_a_body_may_come_in_pieces(stack: Stack, line: Line) -> None:
    whole = registration(stack.provisioning_key, "d")
    for byte in whole:
        await line.send(bytes([byte]))
        # This gives the server a turn of the event loop to read one byte.
        await asyncio.sleep(0)
    assert (await line.answer()).status == 201
    # The end of one request may come together with the beginning of the next.
    await line.send(whole[:-1])
    await line.send(whole[-1:] + whole[:20])
    assert (await line.answer()).status == 200
    assert (await line.ask(whole[20:])).status == 200


async def test_a_body_may_be_chunked(stack: Stack, line: Line) -> None:
    head = request("POST", REGISTER, *known(stack.provisioning_key), "Transfer-Encoding: chunked")
    body = device("d")
    chunks = [b"%x;by=tests\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])]
    for ending in (b"0\r\n\r\n", b"0\r\nX-Checked: yes\r\n\r\n"):
        await line.send(head, *chunks)
        answer = await line.ask(ending + connection("d"))
        assert answer.status in (200, 201)
        assert (await line.answer()).status == 200
    # With both lengths, two servers could read the request differently.
    both = head.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n")
    assert (await line.ask(both + b"".join(chunks) + b"0\r\n\r\n")).status == 400
    await line.assert_it_ends()


async def test_trailer_fields_are_not_used_as_headers(stack: Stack, line: Line) -> None:
    """Proxies have not seen the fields after a body (RFC 9110, section 6.5.1)."""
    head = request("POST", REGISTER, "Content-Type: application/json", "Transfer-Encoding: chunked")
    body = device("d")
    late = f"Authorization: Bearer {stack.provisioning_key}\r\nX-Last: 1\r\n".encode()
    answer = await line.ask(head + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, late))
    assert answer.status == 401
    assert (await line.ask(registration(stack.provisioning_key, "d"))).status == 201


async def test_a_client_that_expects_100_gets_it(stack: Stack, line: Line) -> None:
    expecting = registration(stack.provisioning_key, "d", "Expect: 100-continue")
    head, _, body = expecting.partition(b"\r\n\r\n")
    for expected in (201, 200):
        await line.send(head + b"\r\n\r\n")
        assert await line.answer() == Answer(100, [], b"")
        assert (await line.ask(body)).status == expected
    # It also works if the client does not wait, or if other requests come first.
    await line.send(request("GET", "/healthz") + expecting + connection("d"))
    statuses = [(await line.answer()).status for _ in range(3)]
    if statuses[1] == 100:
        statuses = [statuses[0], statuses[2], (await line.answer()).status]
    assert statuses == [200, 200, 200]


async def test_a_client_of_http_1_0_gets_no_100(stack: Stack, line: Line) -> None:
    """RFC 9110, section 10.1.1: such an expectation must be ignored."""
    expecting = registration(stack.provisioning_key, "d", "Expect: 100-continue", version="1.0")
    assert (await line.ask(expecting)).status == 201
    await line.assert_it_ends()


async def test_head_is_get_without_the_body(stack: Stack, line: Line) -> None:
    def lasting(answer: Answer) -> list[tuple[str, str]]:
        return [pair for pair in answer.headers if pair[0] not in VARYING]

    await line.ask(registration(stack.provisioning_key, "d"))
    tag = (await line.ask(connection("d"))).header("etag")
    for uuid, header in (
        ("d", "X: y"),
        ("d", f"If-None-Match: {tag}"),
        ("d", "Authorization: Bearer another"),
        ("nobody", "X: y"),
    ):
        got = await line.ask(connection(uuid, header))
        head = await line.ask(connection(uuid, header, method="HEAD"), to="HEAD")
        assert (head.status, head.body) == (got.status, b"")
        # A problem contains the id of the request, which is always 32 digits long.
        assert lasting(head) == lasting(got)
    assert (await line.ask(request("HEAD", REGISTER), to="HEAD")).status == 405
    assert (await line.ask(request("GET", "/healthz"))).status == 200


async def test_a_connection_ends_after_the_last_request(stack: Stack) -> None:
    key = stack.provisioning_key
    for version, headers in (
        ("1.1", ["Connection: close"]),
        ("1.1", ["Connection: Keep-Alive, Close"]),
        ("1.0", []),
        ("1.0", ["Connection: keep-alive"]),
    ):
        for asked in (
            registration(key, "d", *headers, version=version),
            connection("d", *headers, version=version),
            connection("nobody", *headers, version=version),
            request("PUT", REGISTER, *headers, version=version),
        ):
            async with line_to(stack.gateway_url) as line:
                # Bytes after the last request are ignored.
                answer = await line.ask(asked + registration(key, "after"))
                assert answer.header("connection") == "close"
                await line.assert_it_ends()
    assert uuids_in(stack) == {"d"}


async def test_a_body_that_is_too_large_is_refused(stack: Stack, line: Line) -> None:
    key = stack.provisioning_key
    fits = b" " * (64 * 1024 - len(device("d"))) + device("d")
    assert (await line.ask(request("POST", REGISTER, *known(key), body=fits))).status == 201
    for size in (64 * 1024 + 1, 500_000, 5_000_000):
        large = request("POST", REGISTER, *known(key), body=b" " * size)
        # The same holds for a request that waits for an answer before it.
        for before in ([], [200]):
            async with line_to(stack.gateway_url) as other:
                # A client that sends the whole body before it reads still gets the answer.
                with contextlib.suppress(ConnectionError):
                    await other.send(connection("d") * len(before) + large)
                assert [(await other.answer()).status for _ in before] == before
                answer = await other.answer()
                assert (answer.status, answer.reason) == (413, "BODY_TOO_LARGE")
                if answer.header("connection") == "close":
                    with contextlib.suppress(ConnectionError):
                        await other.assert_it_ends()
                else:
                    assert (await other.ask(connection("d"))).status == 200
    # The length of a chunked body is not announced; it is refused before its end.
    head = request("POST", REGISTER, *known(key), "Transfer-Encoding: chunked")
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    await line.send(head, *[chunk] * 9)
    assert (await line.answer()).status == 413
    assert uuids_in(stack) == {"d"}


async def test_other_methods_are_405(stack: Stack, line: Line) -> None:
    mqtt = "/api/v1/device/d/mqtt"
    for path, allowed in ((REGISTER, "POST"), (f"{REGISTER}?a=b", "POST"), (mqtt, "GET, HEAD")):
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            if method in allowed.split(", "):
                continue
            answer = await line.ask(request(method, path), to=method)
            assert (answer.status, answer.header("allow")) == (405, allowed)
            if method != "HEAD":
                assert answer.reason == "METHOD_NOT_ALLOWED"
    assert (await line.ask(request("PUT", REGISTER, body=b"{}"))).status == 405
    assert (await line.ask(request("GET", "/healthz"))).status == 200


async def test_not_modified_has_no_body_and_the_connection_stays_open(
    stack: Stack, line: Line
) -> None:
    await line.ask(registration(stack.provisioning_key, "d"))
    tag = (await line.ask(connection("d"))).header("etag")
    await line.send(connection("d", f"If-None-Match: {tag}") * 3 + connection("d"))
    for _ in range(3):
        answer = await line.answer()
        assert (answer.status, answer.header("etag")) == (304, tag)
        assert answer.header("content-length") is None
    # If an answer before had a body, it would be read as the beginning of this one.
    assert (await line.answer()).status == 200


async def test_a_harmless_request_id_is_kept_and_any_other_replaced(
    stack: Stack, line: Line
) -> None:
    for harmless in ("of.the-caller_1", "0", "x" * 64):
        known_as = f"X-Request-ID: {harmless}"
        made = await line.ask(registration(stack.provisioning_key, "d", known_as))
        asked = await line.ask(connection("d", known_as))
        refused = await line.ask(connection("nobody", known_as))
        assert {answer.request_id for answer in (made, asked, refused)} == {harmless}
        assert json.loads(refused.body)["request_id"] == harmless
    seen = set()
    odd = ["", " ", "a b", "a\tb", "<script>", "x" * 65, "\xe9", "\xff" * 8, "a,b", "%0d%0a", "a;b"]
    for value in [*odd, "x" * 20_000]:
        for question in (connection("d", f"X-Request-Id: {value}"), connection("nobody")):
            answer = await line.ask(question)
            assert len(answer.request_id) == 32
            assert set(answer.request_id) <= set("0123456789abcdef")
            seen.add(answer.request_id)
    assert len(seen) == 2 * (len(odd) + 1)


INJECTED = "a\r\nSet-Cookie: x=y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"


async def test_no_request_can_insert_a_header_into_an_answer(stack: Stack, line: Line) -> None:
    key = stack.provisioning_key
    await line.ask(registration(key, "d"))
    names = ("X-Request-Id", "Authorization", "If-None-Match")
    for name, ending in itertools.product(names, ("\r\n", "\n", "\r", "\x00", "\x0b", "\x85")):
        injected = INJECTED.replace("\r\n", ending)
        async with line_to(stack.gateway_url) as other:
            await other.send(connection("d", f"{name}: {injected}", "Connection: close"))
            async with asyncio.timeout(PATIENCE_S):
                said = await other.reader.read()
        assert said.startswith(b"HTTP/1.1 ")
        assert b"cookie" not in said.lower()
    for changes in (
        {"uuid": INJECTED},
        {"deviceName": INJECTED},
        {"deviceApiKey": INJECTED},
        {"location": {INJECTED: 1}},
        {INJECTED: INJECTED},
    ):
        body = json.dumps(json.loads(device("d")) | changes).encode()
        answer = await line.ask(request("POST", REGISTER, *known(key), body=body))
        assert answer.status in (200, 422)
        assert answer.header("set-cookie") is None
    quoted = "%0d%0aSet-Cookie:%20x=y%0d%0a"
    for path in (f"/api/v1/device/{quoted}/mqtt", f"/api/v1/device/d/mqtt?{quoted}", f"/{quoted}"):
        answer = await line.ask(request("GET", path, "Authorization: Bearer test-api-key"))
        assert answer.header("set-cookie") is None


async def test_a_client_may_disconnect_at_any_time(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    key = stack.provisioning_key
    whole = registration(key, "d")
    head = whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    expecting = registration(key, "d", "Expect: 100-continue").partition(b"{")[0]
    beginnings = [
        b"",
        whole[:10],
        head[:-2],
        head,
        whole[:-1],
        expecting,
        request("POST", REGISTER, *known(key), body=b" " * 100_000)[:-1],
        whole,
        whole * 20,
        whole + head,
        connection("d"),
        connection("d") * 20 + whole[:-1],
        request("GET", "/healthz") + whole,
        whole + request("GET", "/healthz"),
        registration(key, "d", "Connection: close"),
    ]
    with nothing_goes_wrong(caplog):
        for beginning in beginnings:
            for is_abrupt in (False, True):
                async with line_to(stack.gateway_url) as line:
                    await line.send(beginning)
                    if is_abrupt:
                        line.break_off()
                    else:
                        line.writer.write_eof()
        # By now the gateway has read everything, and no request is in flight.
        for number in range(5):
            async with line_to(stack.gateway_url) as line:
                assert (await line.ask(registration(key, f"after-{number}"))).status == 201


async def test_a_client_may_disconnect_while_it_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with staged(tmp_path) as stage:
        url = str(stage.http.base_url)
        with nothing_goes_wrong(caplog):
            for is_abrupt in (False, True):
                stage.registry.is_open.clear()
                stage.registry.is_asked.clear()
                begun = len(stage.registry.batches)
                async with line_to(url) as leaving, line_to(url) as staying:
                    for uuid in ("first", "second"):
                        await leaving.send(registration("key", uuid))
                        if uuid == "first":
                            await until(lambda: len(stage.registry.batches) > begun)  # noqa: B023
                    await staying.send(registration("key", "stays"))
                    if is_abrupt:
                        leaving.break_off()
                    else:
                        leaving.writer.close()
                        await leaving.writer.wait_closed()
                    stage.registry.is_open.set()
                    assert (await staying.answer()).status == 201
                    assert (await staying.ask(connection("d"))).status == 200


@pytest.mark.parametrize("path", ["/api/v1/device/d/mqtt", "/healthz"])
async def test_a_client_that_does_not_read_cannot_fill_the_memory(stack: Stack, path: str) -> None:
    """Unread answers would fill the gateway's memory, and these requests need no secret."""
    parts = urlsplit(stack.gateway_url)
    asked = request("GET", path) * 1_000
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        # With small buffers here, nearly all unread bytes are at the gateway.
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            raw.setsockopt(socket.SOL_SOCKET, option, 16_384)
        raw.setblocking(False)
        await loop.sock_connect(raw, (parts.hostname, parts.port))
        taken = 0
        # If nothing can be sent for a second, the gateway waits for the client to read.
        with contextlib.suppress(TimeoutError):
            while taken < 150:
                async with asyncio.timeout(1):
                    await loop.sock_sendall(raw, asked)
                taken += 1
        assert taken < 150
    assert (await stack.http.get("/healthz")).status_code == 200


async def test_unusual_paths_get_the_right_status(stack: Stack, line: Line) -> None:
    key = stack.provisioning_key
    body = device("d")
    for path, expected in (
        (REGISTER, {201}),
        (f"{REGISTER}?", {200}),
        (f"{REGISTER}?a=b&c=/x/../y", {200}),
        (f"{REGISTER}/", {404}),
        (f"/{REGISTER}", {404}),
        ("//api/v1/device//register", {404}),
        ("/API/v1/device/register", {404}),
        ("/api/v1/device/%72egister", {200, 404}),
        ("/api/v1/device/register%2f", {404}),
        ("/api/v1/device/register%00", {404}),
        ("/api/v1/device/../device/register", {404}),
        ("/api/v1/device/", {404}),
        ("/api/v1/device", {404}),
    ):
        answer = await line.ask(request("POST", path, *known(key), body=body))
        assert answer.status in expected, path
    own = "Authorization: Bearer test-api-key"
    for path, expected in (
        ("/api/v1/device/d/mqtt", {200}),
        ("/api/v1/device/d/mqtt?x=y", {200}),
        ("/api/v1/device/%64/mqtt", {200, 404}),
        ("/api/v1/device//mqtt", {404}),
        ("/api/v1/device/mqtt", {404}),
        ("/api/v1/device/d/mqtt/", {404}),
        ("/api/v1/device/d//mqtt", {404}),
        ("/api/v1/device/d/e/mqtt", {404}),
        ("/api/v1/device/d/mqtt%00", {404}),
        ("/api/v1/device/.hidden/mqtt", {404}),
        ("/api/v1/device/d%0a/mqtt", {404}),
        (f"/api/v1/device/{'x' * 65}/mqtt", {404}),
        (f"/api/v1/device/{'x' * 20_000}/mqtt", {404}),
        (f"/api/v1/device/{'x' * 64}/mqtt", {401}),
        ("/api/v1/device/register/mqtt", {401}),
    ):
        answer = await line.ask(request("GET", path, own))
        assert answer.status in expected, path
        assert answer.header("content-type") in ("application/json", "application/problem+json")


async def test_a_path_may_be_a_whole_url(stack: Stack, line: Line) -> None:
    """RFC 9112, section 3.2.2: a server must accept it."""
    base = "http://gateway.example:4002"
    key = stack.provisioning_key
    made = request("POST", f"{base}{REGISTER}", *known(key), body=device("d"))
    assert (await line.ask(made)).status == 201
    own = "Authorization: Bearer test-api-key"
    assert (await line.ask(request("GET", f"{base}/api/v1/device/d/mqtt", own))).status == 200
    assert (await line.ask(request("GET", f"{base}/healthz"))).status == 200


PROTOCOLS = ("websocket", "h2c", "TLS/1.0", "")


async def test_no_connection_is_upgraded(stack: Stack) -> None:
    """Some clients offer HTTP/2 with the first request that they send over plain HTTP.

    A server may ignore the offer (RFC 9110, section 7.8), and serve the request as usual.
    """
    for number, protocol in enumerate(filter(None, PROTOCOLS)):
        upgrade = (f"Upgrade: {protocol}", "Connection: Upgrade")
        async with line_to(stack.gateway_url) as line:
            answer = await line.ask(request("GET", "/healthz", *upgrade))
            assert (answer.status, answer.header("connection")) == (200, None), protocol
            whole = registration(stack.provisioning_key, f"d{number}", *upgrade)
            for status in (201, 200):
                answer = await line.ask(whole)
                assert (answer.status, answer.header("connection")) == (status, None), protocol


async def test_a_body_is_never_taken_for_a_request(stack: Stack, line: Line) -> None:
    """Not even if the head asks for another protocol."""
    smuggled = registration(stack.provisioning_key, "smuggled")
    for protocol in PROTOCOLS:
        upgrade = (f"Upgrade: {protocol}", "Connection: Upgrade")
        whole = request("POST", REGISTER, *known("k"), *upgrade, body=smuggled)
        head = whole.removesuffix(smuggled)
        async with line_to(stack.gateway_url) as together, line_to(stack.gateway_url) as apart:
            await together.send(whole)
            # Here the answer may come before the body, and the connection may be closed by then.
            await apart.send(head)
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(0.1):
                    await apart.reader.readuntil(b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                await apart.send(smuggled)
            # This registration comes later, so a smuggled one would have been made before it.
            made = await line.ask(registration(stack.provisioning_key, "after"))
            assert made.status in (200, 201)
            assert uuids_in(stack) == {"after"}, protocol


async def test_a_device_may_use_tls(stack: Stack, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    chain, private = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    private.write_bytes(certificate.private_key_pem.bytes())
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    config = stack.gateway_config(https_cert_file=chain, https_key_file=private)
    async with running(config) as url:
        assert url.startswith("https://")
        async with line_to(url, tls) as line:
            for uuid in ("a", "b"):
                made = await line.ask(registration(stack.provisioning_key, uuid))
                assert (made.status, json.loads(made.body)["uuid"]) == (201, uuid)
            await line.send(connection("a") + request("GET", "/healthz") + connection("b"))
            assert [(await line.answer()).status for _ in range(3)] == [200, 200, 200]
            last = await line.ask(connection("a", "Connection: close"))
            assert last.status == 200
            await line.assert_it_ends()
        async with line_to(url, tls) as line:
            large = request("POST", REGISTER, *known("k"), body=b" " * 200_000)
            assert (await line.ask(large)).status == 413
        # A client without TLS gets no answer, and later clients are served.
        async with line_to(url) as plain:
            await plain.send(connection("a"))
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(PATIENCE_S):
                    assert not (await plain.reader.read()).startswith(b"HTTP")
        async with line_to(url, tls) as line:
            assert (await line.ask(connection("b"))).status == 200


async def test_a_stop_answers_what_is_under_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with staged(tmp_path) as stage, contextlib.AsyncExitStack() as exits:
        url = str(stage.http.base_url)
        stage.registry.is_open.clear()

        def asked() -> set[str]:
            return set(itertools.chain(*stage.registry.batches))

        with nothing_goes_wrong(caplog):
            idle, asking, pipelining, sending = [
                await exits.enter_async_context(line_to(url)) for _ in range(4)
            ]
            # One request is at the registry, one waits behind another, and one has an incomplete
            # body.
            await asking.send(registration("key", "asked"))
            await until(lambda: asked() == {"asked"})
            whole = registration("key", "sent")
            await sending.send(whole[:-5])
            await pipelining.send(registration("key", "first") + registration("key", "second"))
            # When this is answered, the gateway has read the requests that were sent before.
            assert (await idle.ask(request("GET", "/healthz"))).status == 200

            stopping = asyncio.create_task(stage.gateway.aclose())
            await idle.assert_it_ends()
            await sending.send(whole[-5:])
            stage.registry.is_open.set()
            for line in (asking, sending):
                answer = await line.answer()
                assert (answer.status, answer.header("connection")) == (201, "close")
                await line.assert_it_ends()
            assert [(await pipelining.answer()).status for _ in range(2)] == [201, 201]
            await pipelining.assert_it_ends()
            async with asyncio.timeout(PATIENCE_S):
                await stopping
        assert asked() == {"asked", "first", "second", "sent"}
