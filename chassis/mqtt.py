"""A minimal client for MQTT 5 and MQTT 3.1.1, for brokers that may be hostile.

https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html, to which the sections below refer, and
https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html. It publishes and receives with QoS 0
and keeps no queue: a packet is read when it is asked for, so that a broker can make this client
hold one packet only. General MQTT clients hold what they receive, without a bound on its size.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

V3_1_1, V5 = 4, 5
PINGREQ = 0xC0
CONNACK, PUBLISH, SUBACK, PINGRESP, DISCONNECT = 0x20, 0x30, 0x90, 0xD0, 0xE0
# Much larger than the longest list in a plugin's answer.
MAX_PACKET_BYTES = 4 * 1024 * 1024
KEEP_ALIVE_S = 30
PING_S = 15.0
# The limit of all bytes that are read after a message was published, because answers to other
# clients arrive on the same topic. Each packet counts as more than its bytes, which limits the
# number of small packets too.
MAX_RECEIVED_BYTES = 64 * 1024 * 1024
PACKET_BYTES = 1024
# Section 3.1.3.1, and 2.1.4 for the remaining length of a packet.
MAX_STRING_BYTES = 65_535
MAX_LENGTH_BYTES = 4
# 3.1.2.11: the maximum packet size. Topic aliases are not allowed, because no maximum is given.
CONNECT_PROPERTIES = b"\x27" + MAX_PACKET_BYTES.to_bytes(4)
CLEAN_START, HAS_PASSWORD, HAS_USERNAME = 0x02, 0x40, 0x80
SUBSCRIPTION_ID = 1


class ProtocolError(Exception):
    """The broker violates the protocol."""


class BrokerRefusal(Exception):
    """The broker refuses the connection or ends it."""

    def __init__(self, code: int) -> None:
        """`code` is the reason code (section 2.4); in MQTT 3.1.1 the return code of CONNACK."""
        super().__init__(f"reason code {code:#x}")
        self.code = code


class Reader(Protocol):
    """The part of `asyncio.StreamReader` that a connection uses."""

    async def readexactly(self, n: int) -> bytes:
        """The next `n` bytes. Raises `EOFError`, `OSError`."""
        ...


class Writer(Protocol):
    """The part of `asyncio.StreamWriter` that a connection uses."""

    def write(self, data: bytes) -> None:
        """Sends the bytes, now or later."""

    async def drain(self) -> None:
        """Waits until the client may send more. Raises `OSError`."""

    @property
    def transport(self) -> asyncio.WriteTransport:
        """What `abort` closes."""
        ...


class Connection:
    """One connection. Methods may raise `ProtocolError`, `BrokerRefusal`, `OSError`, `EOFError`."""

    def __init__(self, reader: Reader, writer: Writer, *, version: int = V5) -> None:
        """Call `open` and `subscribe` before other methods."""
        self._reader = reader
        self._writer = writer
        self._version = version
        self._received = 0

    async def open(
        self, client_id: str, username: str | None = None, password: str | None = None
    ) -> None:
        """Logs in, without a username or a password if these are None."""
        flags = CLEAN_START
        flags |= HAS_USERNAME if username is not None else 0
        flags |= HAS_PASSWORD if password is not None else 0
        variable = _string("MQTT") + bytes((self._version, flags)) + KEEP_ALIVE_S.to_bytes(2)
        given = [text for text in (client_id, username, password) if text is not None]
        payload = b"".join(map(_string, given))
        await self._send(0x10, variable + self._properties(CONNECT_PROPERTIES) + payload)
        kind, body = await self._receive()
        if kind != CONNACK or len(body) < 2:
            raise ProtocolError("no answer to CONNECT")
        if body[1]:
            raise BrokerRefusal(body[1])

    async def subscribe(self, topic: str) -> int:
        """Subscribes, and returns the reason code of the answer; from 0x80 on it is a refusal."""
        options = b"\x00"
        body = SUBSCRIPTION_ID.to_bytes(2) + self._properties() + _string(topic) + options
        await self._send(0x82, body)
        kind, answer = await self._receive()
        while kind != SUBACK:
            # Retained messages may arrive first.
            kind, answer = await self._receive()
        shortest = 2 + len(self._properties()) + 1
        if len(answer) < shortest or answer[:2] != SUBSCRIPTION_ID.to_bytes(2):
            raise ProtocolError("no answer to SUBSCRIBE")
        return answer[-1]

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publishes with QoS 0."""
        self._received = 0
        await self._send(0x30, _string(topic) + self._properties() + payload)

    async def message(self, topic: str) -> bytes:
        """The payload of the next message. Raises `ProtocolError` if it is on another topic."""
        while True:
            kind, body = await self._receive()
            if kind != PUBLISH:
                continue
            length = int.from_bytes(body[:2])
            if body[2 : 2 + length] != topic.encode():
                raise ProtocolError("a message on a topic that was not subscribed to")
            if self._version == V3_1_1:
                return body[2 + length :]
            size, begin = _length_in(body, 2 + length)
            return body[begin + size :]

    async def ping(self) -> None:
        """Asks the broker for an answer, which `pong` receives."""
        self._received = 0
        await self._send(PINGREQ, b"")

    async def pong(self) -> bytes:
        """Returns nothing when the answer to `ping` has come."""
        while True:
            kind, body = await self._receive()
            if kind == PINGRESP:
                return body

    @contextlib.asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Pings the broker until the block ends; closes the connection then."""
        pinging = asyncio.create_task(self._ping())
        try:
            yield
            with contextlib.suppress(OSError):
                await self._send(DISCONNECT, b"")
        finally:
            # Close first: if this task is cancelled again, the await below never returns.
            self._writer.transport.abort()
            pinging.cancel()
            await asyncio.gather(pinging, return_exceptions=True)

    def _properties(self, properties: bytes = b"") -> bytes:
        """The properties of a packet, which only MQTT 5 has."""
        return b"" if self._version == V3_1_1 else _with_length(properties)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_S)
            self._writer.write(bytes((PINGREQ, 0)))

    async def _send(self, kind: int, body: bytes) -> None:
        self._writer.write(bytes((kind,)) + _with_length(body))
        await self._writer.drain()

    async def _receive(self) -> tuple[int, bytes]:
        """The kind of the next packet, and its body."""
        [first] = await self._reader.readexactly(1)
        length = 0
        for index in range(MAX_LENGTH_BYTES):
            [byte] = await self._reader.readexactly(1)
            length |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                break
        else:
            raise ProtocolError("the length of a packet has too many bytes")
        if length > MAX_PACKET_BYTES:
            raise ProtocolError(f"a packet of {length} bytes")
        self._received += PACKET_BYTES + length
        if self._received > MAX_RECEIVED_BYTES:
            raise ProtocolError("the broker sends more than an answer can have")
        kind = first & 0xF0
        if kind not in (CONNACK, PUBLISH, SUBACK, PINGRESP, DISCONNECT):
            raise ProtocolError(f"a packet of the kind {kind:#x}")
        if kind == PUBLISH and first & 0x06:
            raise ProtocolError("a message with a QoS that was not agreed on")
        body = await self._reader.readexactly(length)
        if kind == DISCONNECT:
            raise BrokerRefusal(body[0] if body else 0)
        return kind, body


def _string(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > MAX_STRING_BYTES:
        raise ProtocolError("a text is longer than MQTT allows")
    return len(encoded).to_bytes(2) + encoded


def _with_length(body: bytes) -> bytes:
    """The bytes, with their length before them as a variable byte integer (section 1.5.5)."""
    length, encoded = len(body), bytearray()
    while True:
        length, low = divmod(length, 128)
        encoded.append(low | 0x80 if length else low)
        if not length:
            return bytes(encoded) + body


def _length_in(body: bytes, begin: int) -> tuple[int, int]:
    """The variable byte integer at `begin`, and the index after it. Raises `ProtocolError`."""
    value = 0
    for index, byte in enumerate(body[begin : begin + MAX_LENGTH_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, begin + index + 1
    raise ProtocolError("a message whose properties have no length")
