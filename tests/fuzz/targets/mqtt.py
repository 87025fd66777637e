"""What a hostile broker sends to the client of the control topic."""

import asyncio
import secrets
from contextlib import suppress
from typing import Any
from unittest import mock

from chassis.mqtt import BrokerRefusal, Connection, ProtocolError
from registry_service.admission.reconciler.dynamic_security import Command
from registry_service.admission.reconciler.mosquitto_client import ANSWERS, _Conversation
from registry_service.errors import ControlUnreadable

TOKEN = "0123456789abcdef"
CONNACK = b"\x20\x03\x00\x00\x00"
SUBACK = b"\x90\x04\x00\x01\x00\x00"


def _published(payload: bytes, first: bytes = b"\x30", properties: bytes = b"\0") -> bytes:
    topic = ANSWERS.encode()
    body = len(topic).to_bytes(2) + topic + properties + payload
    length = bytes((len(body) % 128 | 0x80, len(body) // 128))
    return first + length + body


LISTED = b'{"responses":[{"command":"c","correlationData":"%b:0","data":{"client":{}}}]}'
SEEDS = (
    CONNACK + SUBACK + _published(LISTED % TOKEN.encode()) * 2,
    CONNACK + _published(b"retained", b"\x31") + SUBACK + b"\xd0\x00" + _published(b"{}"),
    CONNACK + SUBACK + _published(TOKEN.encode() + b'{"responses":[]}', properties=b"\x02\x01\x01"),
    *(b"\x20\x03\x00\x86\x00", CONNACK + b"\xe0\x02\x8e\x00", CONNACK + b"\x90\x03\x00\x01\x87"),
    *(b"\x20\xff\xff\xff\x7f", b"\x20\x80\x80\x80\x80\x01", CONNACK + b"\x30\x00", b"\x20\x00"),
)
WORDS = (
    *(
        CONNACK,
        SUBACK,
        b"\xd0\x00",
        b"\xe0\x00",
        ANSWERS.encode(),
        TOKEN.encode(),
        b"\x32",
        b"\x34",
    ),
    *(b"\x80\x80\x01", b"\xff\xff\xff\x7f", b'"responses":[', b'"correlationData":"', b'"error":'),
)
LOOP = asyncio.new_event_loop()


class Unread:
    """A writer that drops what is written."""

    def write(self, data: bytes) -> None:
        """Does nothing: the broker's answers do not depend on it."""

    async def drain(self) -> None:
        """Returns at once, because there is always room."""


async def _serve(sent: bytes) -> None:
    reader, writer = asyncio.StreamReader(), Unread()
    reader.feed_data(sent)
    reader.feed_eof()
    broker: Any = writer
    connection = Connection(reader, broker)
    await connection.open("c", "u", "p")
    code = await connection.subscribe(ANSWERS)
    assert 0 <= code <= 0xFF
    conversation = _Conversation(connection, 5.0)
    for _ in range(2):
        answers = await conversation.ask([Command("getClient", "u", {"username": "u"})])
        assert len(answers) == 1


def _token(_: int) -> str:
    return TOKEN


def attempt(data: bytes) -> None:
    # The broker sees the token before it answers.
    with (
        mock.patch.object(secrets, "token_hex", _token),
        suppress(ProtocolError, BrokerRefusal, OSError, EOFError, ControlUnreadable),
    ):
        LOOP.run_until_complete(_serve(data))
