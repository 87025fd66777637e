"""A hostile broker cannot exhaust the memory or the time of the process that manages it.

The memory is the peak of what Python allocates while a hostile server of the test answers.
"""

import asyncio
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

import registry_service.admission.reconciler.http_management as http_management
from chassis.address_policy import UNRESTRICTED
from registry_service.admission.reconciler.http_management import Emqx, HttpSettings, RabbitMq
from registry_service.admission.reconciler.mosquitto_client import (
    ANSWERS,
    ControlSettings,
    DynamicSecurity,
)
from registry_service.errors import ControlNotAllowed, ControlUnreachable, ControlUnreadable
from tests import hostile

WRONG = (ControlUnreachable, ControlUnreadable, ControlNotAllowed)
# The server's bytes are made before the measurement.
MOST_BYTES = 48 * 1024 * 1024
PATIENCE_S = 30.0
TOPIC = ANSWERS.encode()


async def measured(attempt: Callable[[], Awaitable[Any]]) -> BaseException | None:
    """The result of the call, within bounds of memory and time."""
    outcome: Any
    tracemalloc.start()
    begun = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            [outcome] = await asyncio.gather(attempt(), return_exceptions=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begun < PATIENCE_S
    assert peak < MOST_BYTES, f"{peak} bytes"
    return outcome if isinstance(outcome, BaseException) else None


async def kicked(kind: type[Emqx] | type[RabbitMq], port: int) -> None:
    kicker = kind(HttpSettings(f"http://127.0.0.1:{port}", "u", "p", policy=UNRESTRICTED))
    try:
        await kicker.kick(["device_a"])
    finally:
        await kicker.close()


DEEP = b'{"data":' * 400_000
# Each element becomes a list, and unknown fields are skipped.
WIDE = b"[" + b"[]," * 2_500_000 + b"[]]"
API_ATTACKS: dict[str, Callable[[], hostile.Behaviour]] = {
    "gzip_bomb": hostile.gzip_bomb,
    "endless_body": hostile.endless_body,
    "endless_length": hostile.endless_length,
    "many_headers": hostile.many_headers,
    "endless_headers": hostile.endless_headers,
    "endless_information": hostile.endless_information,
    "endless_trailers": hostile.endless_trailers,
    "deep": lambda: hostile.body_of(DEEP),
    "wide": lambda: hostile.body_of(WIDE),
    "wide_inside": lambda: hostile.body_of(b'{"data":' + WIDE + b"}"),
    "many_structs": lambda: hostile.body_of(b"[" + b"{}," * 2_500_000 + b"{}]"),
    "no_utf8": lambda: hostile.body_of(b'{"data":[{"clientid":"\xff\xfe"}]}'),
    "redirect_loop": lambda: hostile.http(
        b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("kind", [Emqx, RabbitMq])
@pytest.mark.parametrize("attack", API_ATTACKS)
async def test_management_api_does_not_exhaust_the_process(
    monkeypatch: pytest.MonkeyPatch, kind: type[Emqx] | type[RabbitMq], attack: str
) -> None:
    monkeypatch.setattr(http_management, "KICK_S", 1.5)
    async with hostile.serving(API_ATTACKS[attack]()) as port:
        outcome = await measured(lambda: kicked(kind, port))
    assert isinstance(outcome, WRONG), outcome


async def test_a_slow_management_api_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_management, "KICK_S", 1.0)
    async with hostile.serving(hostile.slow_drip(0.05)) as port:
        begun = time.monotonic()
        outcome = await measured(lambda: kicked(Emqx, port))
    assert isinstance(outcome, ControlUnreachable)
    assert time.monotonic() - begun < 10


async def test_management_api_does_not_redirect_the_login() -> None:
    reached: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(hostile.OK + b"Content-Length: 2\r\n\r\n[]")

    async with hostile.serving(note) as elsewhere:
        for status in (b"301 x", b"302 x", b"303 x", b"307 x", b"308 x"):
            where = b"http://127.0.0.1:%d/" % elsewhere
            answer = b"HTTP/1.1 " + status + b"\r\nLocation: " + where
            behaviour = hostile.http(answer + b"\r\nContent-Length: 0\r\n\r\n")
            async with hostile.serving(behaviour) as port:
                outcome = await measured(partial(kicked, Emqx, port))
            assert isinstance(outcome, ControlUnreadable)
    assert reached == []


async def test_management_api_is_called_without_compression_and_cookies() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            body = b'{"data":[]}'
            cookies = b"".join(b"Set-Cookie: c%d=%s\r\n" % (n, b"x" * 1000) for n in range(50))
            head = hostile.OK + cookies + b"Content-Length: %d\r\n\r\n" % len(body)
            writer.write(head + body)

    async with hostile.serving(answer) as port:
        kicker = Emqx(HttpSettings(f"http://127.0.0.1:{port}/x", "u", "p", policy=UNRESTRICTED))
        for _ in range(2):
            assert await kicker.kick(["device_a"]) == {"device_a": 0}
        await kicker.close()
    assert len(heads) == 2
    for head in heads:
        assert head.startswith(b"GET /x/api/v5/clients?username=device_a&")
        assert b"accept-encoding: identity\r\n" in head.lower()
        assert b"cookie" not in head.lower()
        assert b"host: 127.0.0.1:%d\r\n" % port in head.lower()


def huge(kind: int = 0x30) -> bytes:
    return bytes((kind,)) + hostile.length_of(268_435_455) + b"\x00\x01x"


FLOOD = hostile.message(TOPIC, b'{"responses":[]}' + b" " * 60_000)
MQTT_ATTACKS = {
    "huge_message": (huge(), b" " * 65_536),
    "huge_answer_to_connect": (huge(0x20), b" " * 65_536),
    "flood": (FLOOD,),
    "flood_of_qos_2": (hostile.message(TOPIC, b" " * 60_000, kind=0x34),),
    "flood_of_qos_1": (hostile.message(TOPIC, b" " * 60_000, kind=0x32),),
    "flood_on_other_topics": (hostile.message(b"other", b" " * 60_000),),
    "flood_of_pings": (b"\xd0\x00" * 30_000,),
    "endless_length": (b"\x30\xff\xff\xff\xff\xff",),
    "unknown_packets": (b"\xf0\x00",),
    "no_properties": (b"\x30\x06\x00\x04$CON",),
    "disconnect": (b"\xe0\x01\x8b", b"\xe0\x00"),
    "nothing_of_mqtt": (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
}


@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize("attack", MQTT_ATTACKS)
async def test_mosquitto_does_not_exhaust_the_process(attack: str, accepts: bool) -> None:
    behaviour = hostile.mqtt(*MQTT_ATTACKS[attack], accepts=accepts)
    async with hostile.serving(behaviour) as port:
        settings = ControlSettings(
            *("127.0.0.1", port, "u", "p"),
            connect_timeout_s=2.0,
            answer_timeout_s=10.0,
            policy=UNRESTRICTED,
        )
        outcome = await measured(DynamicSecurity(settings).state)
    assert isinstance(outcome, WRONG), repr(outcome)


@pytest.mark.parametrize("body", [DEEP, b'{"responses":' + WIDE + b"}"], ids=["deep", "wide"])
async def test_decoding_an_answer_of_a_mosquitto_takes_no_more_memory_than_the_answer(
    body: bytes,
) -> None:
    """The answer contains the expected fields, so that it is decoded."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in (hostile.ACCEPTED, hostile.SUBSCRIBED):
            await hostile._packet(reader)
            writer.write(reply)
        asked = await hostile._packet(reader)
        begin = asked.index(b'"correlationData":"') + len(b'"correlationData":"')
        token = asked[begin : begin + 16]
        writer.write(hostile.message(TOPIC, b'{"' + token + b'":' + body[:4_000_000]))
        await reader.read()

    async with hostile.serving(answer) as port:
        settings = ControlSettings("127.0.0.1", port, "u", "p", policy=UNRESTRICTED)
        outcome = await measured(DynamicSecurity(settings).state)
    assert isinstance(outcome, ControlUnreadable), repr(outcome)
