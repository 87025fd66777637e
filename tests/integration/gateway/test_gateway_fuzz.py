"""No body, header or path makes the gateway answer 5xx.

The gateway runs in the test's own event loop, so its clients are threads or processes.
"""

import asyncio
import json
import socket
from http.client import HTTPResponse
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=80)
    | st.sampled_from(["\x00", "\ud800", "a" * 300, "1e400", "%00", "💥"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)
FIELDS = (
    "uuid",
    "deviceName",
    "deviceType",
    "deviceApiKey",
    "applicationId",
    "macAddress",
    "osVersion",
    "agentVersion",
    "region",
    "location",
    "__proto__",
)
WHOLE = {"uuid": "d", "deviceName": "n", "deviceType": "t", "deviceApiKey": "test-api-key"}
# Nearly valid, so that they get far: each is wrong in at most two fields.
REGISTRATIONS = st.builds(
    lambda changes: WHOLE | changes, st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2)
)
LOCATIONS = st.builds(
    lambda latitude, longitude: (
        WHOLE | {"location": {"latitude": latitude, "longitude": longitude}}
    ),
    st.floats() | st.integers(),
    st.floats() | st.integers(),
)
BODIES = (
    st.binary(max_size=400)
    | st.builds(lambda value: json.dumps(value).encode(), JSON | REGISTRATIONS | LOCATIONS)
    | st.builds(lambda depth: b'{"x":' * depth + b"1" + b"}" * depth, st.integers(1, 12_000))
    | st.builds(lambda size: b'{"uuid":"' + b"a" * size + b'"}', st.integers(0, 70_000))
)
TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20).map(str.encode)
HEADER_NAMES = TOKEN | st.sampled_from(
    [
        b"Authorization",
        b"Content-Type",
        b"Content-Encoding",
        b"Cookie",
        b"Accept",
        b"If-None-Match",
        b"Expect",
        b"Host",
        b"X-Request-Id",
        b"X-Forwarded-For",
        b"Origin",
    ]
)
HEADERS = st.lists(
    st.tuples(
        HEADER_NAMES, st.binary(max_size=60).map(lambda value: value.translate(None, b"\r\n"))
    ),
    max_size=5,
)
SEGMENTS = """
    api v1 device devices brokers fleets provisioning-keys register mqtt default docs openapi.json
    healthz readyz 5.35.0 %00 %ff %2e%2e .. %2F %C0%AF %ED%A0%80 %0d%0a 0 -1 2147483648
    99999999999999999999 ; ? & = limit cursor abc # + * // { }
"""
PATHS = st.binary(min_size=1, max_size=200).map(
    lambda path: path.translate(None, b" \r\n\t")
) | st.lists(st.sampled_from(SEGMENTS.split()), max_size=9).map(
    lambda segments: "/".join(segments).encode()
)


class Wire:
    """A client that sends requests as bytes, so that no library corrects them."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 0)
        self._authorization = b"Authorization: Bearer " + key.encode() + b"\r\n"

    def check_answer(self, head: bytes, body: bytes = b"", *, is_known: bool = True) -> None:
        """Sends one request, and fails the test if the status is 500 or more."""
        authorization = self._authorization if is_known else b""
        request = (
            head
            + b"\r\nConnection: close\r\n"
            + authorization
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        with socket.create_connection(self._address, timeout=20) as connection:
            connection.sendall(request)
            response = HTTPResponse(connection)
            response.begin()
            with response:
                answer = response.read()
        assert response.status < 500, (head, body, response.status, answer)
        if response.getheader("content-type") == "application/problem+json":
            assert json.loads(answer)["status"] == response.status
        elif response.getheader("content-type", "").startswith("text/html"):
            assert answer.lower().startswith(b"<!doctype html>"), (head, answer)
        elif response.status == 303:
            assert response.getheader("location", "").startswith("/console"), head
        else:
            # It was successful, or it was not HTTP and the server itself refused it.
            assert response.status < 300 or answer == b"Invalid HTTP request received."


@pytest.fixture
def wire(gateway_url: str, provisioning_key: str) -> Wire:
    return Wire(gateway_url, provisioning_key)


REGISTER = b"POST /api/v1/device/register HTTP/1.1\r\nHost: localhost"


async def test_no_body_makes_a_5xx(wire: Wire) -> None:
    @EXAMPLES
    @given(BODIES)
    def fuzz(body: bytes) -> None:
        wire.check_answer(REGISTER + b"\r\nContent-Type: application/json", body)

    await asyncio.to_thread(fuzz)


async def test_no_headers_make_a_5xx(wire: Wire) -> None:
    @EXAMPLES
    @given(HEADERS, st.booleans())
    def fuzz(headers: list[tuple[bytes, bytes]], is_known: bool) -> None:
        lines = b"".join(b"\r\n" + name + b": " + value for name, value in headers)
        wire.check_answer(REGISTER + lines, json.dumps(WHOLE).encode(), is_known=is_known)

    await asyncio.to_thread(fuzz)


async def test_no_path_makes_a_5xx(wire: Wire) -> None:
    @EXAMPLES
    @given(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS"]), PATHS)
    def fuzz(method: bytes, path: bytes) -> None:
        wire.check_answer(method + b" /" + path + b" HTTP/1.1\r\nHost: localhost")

    await asyncio.to_thread(fuzz)
