"""MQTT over WebSocket (MQTT 3.1.1, section 6), with the interface of a stream."""

import asyncio
import ssl
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from chassis.mqtt import MAX_PACKET_BYTES, ProtocolError, Reader, Writer

SUBPROTOCOL = "mqtt"


class _Connect(connect):
    """Does not follow redirects: they could lead to an address that the policy refuses."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Returns the answer as an error."""
        return exc


async def websocket(
    address: str, port: int, path: str, host: str, tls: ssl.SSLContext | None
) -> tuple[Reader, Writer]:
    """A WebSocket to an address of `host`. Raises `ProtocolError`, `OSError`."""
    name = f"[{host}]" if ":" in host else host
    # Without TLS, the library refuses the name of a server.
    options: dict[str, Any] = {"ssl": tls, "server_hostname": host} if tls else {}
    try:
        socket = await _Connect(
            f"{'wss' if tls else 'ws'}://{name}:{port}{path}",
            host=address,
            port=port,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            max_size=MAX_PACKET_BYTES,
            compression=None,
            proxy=None,
            **options,
        )
    except (InvalidHandshake, InvalidMessage) as error:
        raise ProtocolError(f"no WebSocket at {path}: {error}") from None
    stream = _Stream(socket)
    return stream, stream


class _Stream:
    """Both directions of a WebSocket. A packet may lie in several messages (6.0)."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._unread = b""
        self._unsent = b""

    @property
    def transport(self) -> asyncio.WriteTransport:
        """The transport of the connection."""
        return cast("asyncio.WriteTransport", self._socket.transport)

    async def readexactly(self, n: int) -> bytes:
        """The next `n` bytes. Raises `EOFError`, `ProtocolError`."""
        while len(self._unread) < n:
            try:
                message = await self._socket.recv()
            except ConnectionClosed as error:
                raise EOFError from error
            if isinstance(message, str):
                raise ProtocolError("a text message")
            self._unread += message
        read, self._unread = self._unread[:n], self._unread[n:]
        return read

    def write(self, data: bytes) -> None:
        """Keeps the bytes until `drain`."""
        self._unsent += data

    async def drain(self) -> None:
        """Sends the bytes. Raises `EOFError`."""
        data, self._unsent = self._unsent, b""
        try:
            await self._socket.send(data)
        except ConnectionClosed as error:
            raise EOFError from error
