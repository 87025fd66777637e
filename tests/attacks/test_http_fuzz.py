"""No bytes make an HTTP server fail or hang, or affect other clients."""

import asyncio
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.http_limits import HttpLimits
from tests.http_server import served, statuses

# The limits are short, because of clients that send half a request.
LIMITS = HttpLimits(head_s=0.3, body_s=0.3, idle_s=0.3, quiet_s=0.1, linger_s=0.3)
PATIENCE_S = 10.0
TRIES = 5
FINE = b"GET /asgi HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"PRI", b"get", b""])
TARGETS = (
    st.sampled_from(
        [
            b"/asgi",
            b"/direct",
            b"/asgi/refused",
            b"/direct/refused",
            b"*",
            b"/",
            b"//",
            b"/%2",
            b"h:1",
        ]
    )
    | st.sampled_from([b"http://h/direct", b"/direct#", b"/a/../b", b"/" + b"a" * 40_000])
    | st.binary(max_size=20)
)
VERSIONS = st.sampled_from([b" HTTP/1.1", b" HTTP/1.0", b" HTTP/0.9", b" HTTP/2.0", b"", b" X/1.1"])
FIELDS = st.lists(
    st.sampled_from(
        [
            b"Host: h",
            b"Host: h",
            b"Host: a b",
            b"Content-Length: 5",
            b"Content-Length: 70000",
            b"Content-Length: -1",
            b"Content-Length: 99999999999999999999",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip",
            b"Connection: close",
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"Upgrade: websocket",
            b"Expect: 100-continue",
            b"Expect: something",
            b" folded",
            b"name : x",
            b": x",
            b"x: " + b"y" * 33_000,
        ]
    )
    | st.binary(max_size=20),
    max_size=6,
)
ENDS = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b""])
BODIES = (
    st.sampled_from(
        [b"", b"abcde", b"5\r\nabcde\r\n0\r\n\r\n", b"5;a=b\r\nabcde\r\n0\r\nX: y\r\n\r\n"]
    )
    | st.sampled_from(
        [b"0\r\n\r\n", b"fffffffffffffffff\r\n", b"5\nabcde", b"a" * 70_000, b"1;" + b"a" * 40_000]
    )
    | st.binary(max_size=30)
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Bytes that resemble a request."""
    end = draw(ENDS)
    line = draw(METHODS) + b" " + draw(TARGETS) + draw(VERSIONS)
    return end.join([line, *draw(FIELDS), b"", b""]) + draw(BODIES)


async def answered(address: tuple[str, int], sent: bytes, cuts: list[int]) -> bytes:
    """The bytes that a client receives that sends `sent` in pieces, until the server closes."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(PATIENCE_S):
            at = 0
            for cut in [*sorted(cuts), len(sent)]:
                with contextlib.suppress(ConnectionError):
                    writer.write(sent[at:cut])
                    await writer.drain()
                at = max(at, cut)
                await asyncio.sleep(0)
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b""
    finally:
        writer.close()


@pytest.mark.heavy
@pytest.mark.parametrize("is_sensible", [True, False])
async def test_no_bytes_make_the_server_fail_or_hang(is_sensible: bool) -> None:
    async with served(LIMITS) as address:
        loop = asyncio.get_running_loop()
        until = loop.time() + 15

        @settings(
            max_examples=2_000,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            st.lists(requests(), min_size=1, max_size=4).map(b"".join)
            if is_sensible
            else st.binary(max_size=200),
            st.lists(st.integers(0, 300), max_size=3),
        )
        def no_bytes(sent: bytes, cuts: list[int]) -> None:
            if loop.time() > until:
                return
            coming = asyncio.run_coroutine_threadsafe(answered(address, sent, cuts), loop)
            found = statuses(coming.result())
            assert all(status < 500 for status in found), (sent, found)
            # A busy machine may keep a client waiting for longer than the limits allow.
            fine = (
                asyncio.run_coroutine_threadsafe(answered(address, FINE, []), loop).result()
                for _ in range(TRIES)
            )
            assert any(statuses(said) == [200] for said in fine)

        await asyncio.to_thread(no_bytes)
