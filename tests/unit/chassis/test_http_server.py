"""How an HTTP server stops."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from chassis import http_server
from chassis.direct_http import Head, Reply
from chassis.http_server import Address, serving

PATIENCE_S = 5
STOPS = 20
CLIENTS = 8
BODY = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
ASKED = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


class Greeting:
    """Gives every request the same answer."""

    max_body_bytes = 0

    def find(self, _: Head) -> "Greeting":
        return self

    def admit(self) -> Reply | None:
        return Reply(200, b"", b"hello")

    def ask(self, body: bytes | None, answer: Callable[[Reply], None]) -> None:
        raise AssertionError(body, answer)

    def leave(self) -> None:
        raise AssertionError


async def ask_on(url: str, answers: list[bytes]) -> None:
    """Sends requests on new connections until the server no longer listens."""
    host, _, port = url.removeprefix("http://").partition(":")
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                writer.write(ASKED)
                answers.append(await reader.read())
        except ConnectionError:
            # The server did not accept it.
            answers.append(b"")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def test_a_request_during_the_stop_is_answered_at_once() -> None:
    for number in range(STOPS):
        answers: list[bytes] = []
        async with contextlib.AsyncExitStack() as until_stopped:
            address = Address("127.0.0.1", 0)
            server = serving(None, address, handlers=Greeting(), drain_s=0, grace_s=PATIENCE_S)
            url = await until_stopped.enter_async_context(server)
            clients = [asyncio.create_task(ask_on(url, answers)) for _ in range(CLIENTS)]
            # The stop happens at a random moment; one in five hits the case under test.
            await asyncio.wait(clients, timeout=0.01 + 0.0007 * number)
        await asyncio.gather(*clients)
        greeted = [answer for answer in answers if answer.endswith(b"hello")]
        assert greeted
        assert answers.count(b"") == len(answers) - len(greeted)


class Silence(Greeting):
    """Never answers."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()
        self.is_left = asyncio.Event()

    def admit(self) -> Reply | None:
        return None

    def ask(self, body: bytes | None, answer: Callable[[Reply], None]) -> None:
        self.is_asked.set()

    def leave(self) -> None:
        self.is_left.set()


async def test_a_waiting_client_is_cut_off_after_the_timeout() -> None:
    silence = Silence()
    async with asyncio.timeout(PATIENCE_S):
        address = Address("127.0.0.1", 0)
        async with serving(None, address, handlers=silence, drain_s=0, grace_s=0) as url:
            host, _, port = url.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(ASKED)
            await silence.is_asked.wait()
        await silence.is_left.wait()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST / HTTP/1.1\r\nHost:", id="half a head"),
        pytest.param(BODY + b"x", id="half a body"),
        pytest.param(BODY + b"xyz", id="a body, and then nothing"),
    ],
)
async def test_a_silent_client_does_not_delay_the_stop(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "KEEP_ALIVE_S", 0.2)
    async with asyncio.timeout(PATIENCE_S):
        address = Address("127.0.0.1", 0)
        async with serving(None, address, handlers=Greeting(), drain_s=0, grace_s=1) as url:
            host, _, port = url.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            # A request that was refused before its body is not a connection that waits for its
            # body.
            writer.write(sent)
            while await reader.read(1_000):
                pass
            writer.close()
