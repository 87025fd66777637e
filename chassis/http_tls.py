"""TLS of an HTTP server. The handshake has a time limit, and certificates can be replaced while the
server runs.
"""

import asyncio
import ssl
from pathlib import Path
from typing import Any

from uvicorn.protocols.utils import get_remote_addr

from chassis.http_connection import HttpConnection
from chassis.http_context import Context
from chassis.reloaded import Reloaded


def reloaded_tls(cert_file: Path, key_file: Path | None) -> Reloaded[ssl.SSLContext]:
    """The certificate for clients, read again when its files change. The files may be links that
    are replaced, as Kubernetes does. Files that do not match, for example during a replacement, are
    ignored. Raises `OSError`, of which `ssl.SSLError` is a subclass.
    """
    more = () if key_file is None else (key_file,)
    return Reloaded(cert_file, lambda file: tls_of(file, key_file), *more)


def tls_of(cert_file: Path, key_file: Path | None) -> ssl.SSLContext:
    """The TLS context of a server. Raises `OSError`, of which `ssl.SSLError` is a subclass."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return context


class TlsGate(asyncio.Protocol):
    """A connection until the end of its handshake. It is counted from the start."""

    def __init__(self, context: Context, tls: Reloaded[ssl.SSLContext]) -> None:
        """`tls` is the certificate for new connections."""
        self._context = context
        self._tls = tls
        self._early: list[bytes] = []
        self._is_lost = False

    def connection_made(self, transport: Any) -> None:
        """A client has connected. Only TLS reads its bytes."""
        peer = get_remote_addr(transport)
        host = self._context.connections.enter(peer[0] if peer else "")
        if host is None:
            transport.abort()
            return
        transport.pause_reading()
        tasks = self._context.state.tasks
        task = asyncio.get_running_loop().create_task(self._shake_hands(transport, host))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def data_received(self, data: bytes) -> None:
        """Data from the client in the turn of the loop in which the handshake ended."""
        self._early.append(data)

    def connection_lost(self, _: Exception | None) -> None:
        """The client has disconnected in that turn."""
        self._is_lost = True

    async def _shake_hands(self, transport: Any, host: bytes | str) -> None:
        limits = self._context.limits
        try:
            encrypted = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                self._tls.value,
                server_side=True,
                ssl_handshake_timeout=limits.handshake_s,
                ssl_shutdown_timeout=limits.quiet_s,
            )
        except BaseException as error:
            self._context.connections.leave(host)
            transport.abort()
            if isinstance(error, OSError):  # ssl.SSLError is a subclass
                return
            raise
        connection = HttpConnection(self._context, host)
        if encrypted is None or self._is_lost:
            self._context.connections.leave(host)
            return
        encrypted.set_protocol(connection)
        connection.connection_made(encrypted)
        for data in self._early:
            connection.data_received(data)
