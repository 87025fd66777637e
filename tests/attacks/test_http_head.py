"""No request line and no head costs an HTTP server more than its limit, or can be read in
two ways.
"""

import asyncio
import contextlib
import resource

import pytest

from chassis.http_limits import HttpLimits
from tests.http_server import ASGI, DIRECT, MAX_BODY_BYTES, PATIENCE_S, said, served, statuses

HEAD_BYTES = HttpLimits().head_bytes
PIECE = 256 * 1024
# Shorter than any deadline of the server.
SOON_S = 5.0
FLOOD_BYTES = 200 * 1024 * 1024

ENDLESS = {
    "target": (b"GET /", b"a"),
    "name": (b"GET / HTTP/1.1\r\nHost: h\r\nX", b"a"),
    "value": (b"GET / HTTP/1.1\r\nHost: h\r\nX: ", b"a"),
    "fields": (b"GET / HTTP/1.1\r\nHost: h\r\n", b"a: b\r\n"),
    "method": (b"", b"A"),
    "blank lines": (b"", b"\r\n"),
    "chunk extension": (
        b"POST /asgi HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"a",
    ),
    "trailer": (
        b"POST /asgi HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"a",
    ),
    "trailers": (
        b"POST /asgi HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"a: b\r\n",
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_an_endless_head_takes_neither_time_nor_memory(kind: str) -> None:
    beginning, piece = ENDLESS[kind]
    flood = piece * (PIECE // len(piece))
    async with served() as address:
        before = resource.getrusage(resource.RUSAGE_SELF)
        reader, writer = await asyncio.open_connection(*address)
        writer.write(beginning)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < FLOOD_BYTES and not reader.at_eof():
                writer.write(flood)
                sent += len(flood)
                await asyncio.wait_for(writer.drain(), PATIENCE_S)
                await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()
        after = resource.getrusage(resource.RUSAGE_SELF)
    assert statuses(answer)[0] in (400, 431)
    # Both ends are in this process; bytes beyond the limit are discarded as they arrive.
    assert after.ru_utime - before.ru_utime < 3
    assert after.ru_maxrss - before.ru_maxrss < 40 * 1024


@pytest.mark.parametrize("path", [DIRECT, ASGI])
@pytest.mark.parametrize("where", ["target", "field", "fields"])
async def test_no_head_above_the_limit_is_served(path: str, where: str) -> None:
    def head(size: int) -> bytes:
        plain = b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" % path.encode()
        rest = size - len(plain) - 2
        if where == "target":
            return plain.replace(b" HTTP/1.1", b"?" + b"a" * (rest - 1) + b" HTTP/1.1") + b"\r\n"
        if where == "field":
            return plain + b"X: " + b"a" * (rest - 5) + b"\r\n\r\n"
        count, odd = divmod(rest, 8)
        return plain + b"abc: d\r\n" * (count - 1) + b"abc: d" + b"d" * odd + b"\r\n\r\n"

    async with served() as address:
        for size, status in ((HEAD_BYTES, 200), (HEAD_BYTES + 1, 431), (2 * HEAD_BYTES, 431)):
            whole = head(size)
            assert len(whole) == size
            for step in (size, 8192, 1000):
                parts = [whole[at : at + step] for at in range(0, size, step)]
                assert statuses(await said(address, *parts)) == [status], (size, step)


def request(line: str, *fields: str) -> bytes:
    return "".join(f"{one}\r\n" for one in (line, *fields)).encode("latin-1") + b"\r\n"


CHUNKED = "Transfer-Encoding: chunked"
AMBIGUOUS = {
    "no host": request("GET /direct HTTP/1.1"),
    "two hosts": request("GET /direct HTTP/1.1", "Host: a", "Host: a"),
    "two hosts in 1.0": request("GET /direct HTTP/1.0", "Host: a", "Host: a"),
    "host with a space": request("GET /direct HTTP/1.1", "Host: a b"),
    "host with a path": request("GET /direct HTTP/1.1", "Host: a/b"),
    "HTTP/0.9": b"GET /direct\r\n",
    "HTTP/0.9 said": request("GET /direct HTTP/0.9", "Host: a"),
    "HTTP/2.0": request("GET /direct HTTP/2.0", "Host: a"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": request("POST /direct HTTP/1.1", "Host: a", *["Content-Length: 1"] * 2),
    "lengths in one": request("POST /direct HTTP/1.1", "Host: a", "Content-Length: 1, 1"),
    "signed length": request("POST /direct HTTP/1.1", "Host: a", "Content-Length: +1"),
    "huge length": request("POST /direct HTTP/1.1", "Host: a", f"Content-Length: {10**30}"),
    "length and coding": request("POST /direct HTTP/1.1", "Host: a", "Content-Length: 1", CHUNKED),
    "coding and length": request("POST /direct HTTP/1.1", "Host: a", CHUNKED, "Content-Length: 1"),
    "two codings": request("POST /direct HTTP/1.1", "Host: a", CHUNKED, CHUNKED),
    "unknown coding": request("POST /direct HTTP/1.1", "Host: a", f"{CHUNKED}x"),
    "gzip coding": request("POST /direct HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"),
    "coding in 1.0": request("POST /direct HTTP/1.0", "Host: a", CHUNKED),
    "folded": request("GET /direct HTTP/1.1", "Host: a", "X: a", " b"),
    "folded first": request("GET /direct HTTP/1.1", " X: a", "Host: a"),
    "bare LF": b"GET /direct HTTP/1.1\nHost: a\n\n",
    "bare LF after a field": b"GET /direct HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare CR": b"GET /direct HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "space before colon": request("GET /direct HTTP/1.1", "Host : a"),
    "no name": request("GET /direct HTTP/1.1", "Host: a", ": b"),
    "NUL": request("GET /direct HTTP/1.1", "Host: a", "X: a\0b"),
    "fragment": request("GET /direct#a HTTP/1.1", "Host: a"),
    "fragment in ASGI": request("GET /asgi#a HTTP/1.1", "Host: a"),
    "half an encoding": request("GET /asgi%4 HTTP/1.1", "Host: a"),
    "CONNECT": request("CONNECT a:1 HTTP/1.1", "Host: a"),
    "asterisk": request("GET * HTTP/1.1", "Host: a"),
    "chunk size with a space": request("POST /asgi HTTP/1.1", "Host: a", CHUNKED) + b"1 \r\na",
    "chunk size in hex": request("POST /asgi HTTP/1.1", "Host: a", CHUNKED) + b"0x1\r\na",
    "chunk without its end": request("POST /asgi HTTP/1.1", "Host: a", CHUNKED) + b"1\r\nab\r\n",
    "chunk line with LF": request("POST /direct HTTP/1.1", "Host: a", CHUNKED) + b"1\na\r\n",
}
FINE = request("GET /direct HTTP/1.1", "Host: h")
SMUGGLED = request("GET /asgi HTTP/1.1", "Host: smuggled")


@pytest.mark.parametrize("kind", AMBIGUOUS)
async def test_an_ambiguous_request_is_refused(kind: str) -> None:
    async with served() as address:
        assert statuses(await said(address, AMBIGUOUS[kind] + SMUGGLED)) == [400]
        # Earlier requests are answered once and in their order.
        assert statuses(await said(address, FINE + AMBIGUOUS[kind] + SMUGGLED)) == [200, 400]
        # It comes in one piece with the requests before it. A byte after it ends a line of
        # HTTP/0.9.
        async with asyncio.timeout(SOON_S):
            assert statuses(await said(address, FINE + AMBIGUOUS[kind] + b"x")) == [200, 400]
        halves = AMBIGUOUS[kind][:20], AMBIGUOUS[kind][20:] + SMUGGLED
        assert statuses(await said(address, *halves)) == [400]


@pytest.mark.parametrize("path", [DIRECT, ASGI])
async def test_a_pipeline_is_answered_in_order_and_not_kept_in_memory(path: str) -> None:
    whole = request(f"POST {path} HTTP/1.1", "Host: h", "Content-Length: 3") + b"abc"
    last = request(f"GET {path} HTTP/1.1", "Host: h", "Connection: close")
    count = 20_000
    async with served() as address:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers = await said(address, whole * count + last + whole)
        assert statuses(answers) == [200] * (count + 1)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # The test also holds what it sent and received.
    assert grown < 60 * 1024


@pytest.mark.parametrize("path", [DIRECT, ASGI])
async def test_chunks_of_one_byte_are_a_valid_body(path: str) -> None:
    body = b"1\r\na\r\n" * MAX_BODY_BYTES + b"0\r\nX-Late: 1\r\n\r\n"
    head = request(f"POST {path} HTTP/1.1", "Host: h", CHUNKED, "Connection: close")
    async with served() as address:
        assert str(MAX_BODY_BYTES).encode() in await said(address, head + body)
