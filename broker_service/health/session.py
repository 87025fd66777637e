"""One MQTT session at a broker, as a device would open it, and its round trips."""

import asyncio
import secrets
import socket
import ssl
import time
from collections.abc import Callable

from broker_service.brokers.testing.outcomes import (
    REFUSES_LOGIN,
    Fault,
    Step,
    mqtt_fault,
    tls_fault,
)
from broker_service.brokers.testing.targets import Target
from broker_service.brokers.testing.trial import (
    CA_UNREADABLE,
    FAILURES,
    SUBSCRIPTION_REFUSED,
    WEBSOCKETS,
    presented_at,
)
from broker_service.brokers.testing.websocket import websocket
from chassis.address_policy import AddressPolicy
from chassis.connecting import AddressRefused, resolved
from chassis.mqtt import V3_1_1, BrokerRefusal, Connection, ProtocolError, Reader, Writer

# The context for a target, which may be kept: making one reads all CAs of the system. Raises
# `ValueError`.
TlsOf = Callable[[Target], ssl.SSLContext]


class Failed(Exception):
    """A step of a probe has failed."""

    def __init__(self, step: Step, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.step = step
        self.fault = fault


class Session:
    """An open session. A message travels with a login; without one, only a ping."""

    def __init__(self, connection: Connection, writer: Writer, topic: str | None) -> None:
        """`topic` is subscribed to; None without a login."""
        self._connection = connection
        self._writer = writer
        self._topic = topic
        # It is always reading, so that a closed connection is noticed between round trips.
        self._answer = self._reading()

    @property
    def answer(self) -> "asyncio.Task[bytes]":
        """The next message. It also ends if the connection does."""
        return self._answer

    async def round_trip(self, timeout_s: float) -> float:
        """The milliseconds until a message, or a ping, has come back. Raises `Failed`."""
        payload = secrets.token_bytes(8)
        begun = time.perf_counter()
        try:
            if self._topic is None:
                payload = b""
                await self._connection.ping()
            else:
                await self._connection.publish(self._topic, payload)
            done, _ = await asyncio.wait([self._answer], timeout=timeout_s)
            if not done:
                raise TimeoutError
            answer = self._answer.result()
        except TimeoutError:
            detail = f"a message did not come back: the login may publish to {self._topic}?"
            raise Failed(Step.ROUND_TRIP, Fault("MESSAGE_LOST", detail)) from None
        except FAILURES as error:
            raise Failed(Step.ROUND_TRIP, mqtt_fault(error)) from None
        if answer != payload:
            raise Failed(Step.ROUND_TRIP, Fault("MESSAGE_CHANGED", "another message came back"))
        self._answer = self._reading()
        return (time.perf_counter() - begun) * 1_000

    async def aclose(self) -> None:
        """Closes the connection at once."""
        self._writer.transport.abort()
        self._answer.cancel()
        await asyncio.gather(self._answer, return_exceptions=True)

    def _reading(self) -> "asyncio.Task[bytes]":
        if self._topic is None:
            return asyncio.create_task(self._connection.pong())
        return asyncio.create_task(self._connection.message(self._topic))


async def opened(
    target: Target, policy: AddressPolicy, tls_of: TlsOf, timeout_s: float
) -> Session | None:
    """A new session; None if the broker answers MQTT and refuses clients without a login, which
    Mooring has not. Each step may take `timeout_s`. Raises `Failed`.
    """
    addresses = await _resolved(target, policy)
    context = _context(target, tls_of)
    address, connected = await _connected(target, addresses, timeout_s)
    try:
        reader, writer = await _stream(target, address, connected, context, timeout_s)
    except BaseException:
        connected.close()
        raise
    try:
        return await _logged_in(
            target, Connection(reader, writer, version=V3_1_1), writer, timeout_s
        )
    except BaseException:
        writer.transport.abort()
        raise


async def _resolved(target: Target, policy: AddressPolicy) -> list[str]:
    def failed(reason: str, detail: str) -> Failed:
        return Failed(Step.RESOLVE, Fault(reason, detail))

    try:
        return list(await resolved(target.host, target.port, policy))
    except AddressRefused as error:
        raise failed("ADDRESS_REFUSED", str(error)) from None
    except TimeoutError:
        raise failed("NAME_SERVER_SILENT", "no name server answers in time") from None
    except (OSError, UnicodeError):
        raise failed("NAME_UNKNOWN", f"no address is known for {target.host}") from None


def _context(target: Target, tls_of: TlsOf) -> ssl.SSLContext | None:
    if not target.use_tls:
        return None
    try:
        return tls_of(target)
    except ValueError:
        raise Failed(Step.TLS, Fault(*CA_UNREADABLE)) from None


async def _connected(
    target: Target, addresses: list[str], timeout_s: float
) -> tuple[str, socket.socket]:
    """The first address that accepts a connection, and the connection."""
    fault = Fault("UNREACHABLE", f"no address of {target.host} can be reached")
    for address in addresses:
        try:
            return address, await _connection_to(address, target.port, timeout_s)
        except ConnectionRefusedError:
            fault = Fault("PORT_CLOSED", f"{address} refuses connections to port {target.port}")
        except TimeoutError:
            fault = Fault("UNREACHABLE", f"{address} does not answer at port {target.port}")
        except OSError as error:
            fault = Fault("UNREACHABLE", f"{address}: {error.strerror or 'cannot be reached'}")
    raise Failed(Step.CONNECT, fault)


async def _connection_to(address: str, port: int, timeout_s: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connecting = socket.socket(family, socket.SOCK_STREAM)
    connecting.setblocking(False)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(connecting, (address, port))
    except BaseException:
        connecting.close()
        raise
    return connecting


async def _stream(
    target: Target,
    address: str,
    connected: socket.socket,
    context: ssl.SSLContext | None,
    timeout_s: float,
) -> tuple[Reader, Writer]:
    """The connection after TLS, and over WebSocket where the protocol says so."""
    try:
        async with asyncio.timeout(timeout_s):
            if target.protocol in WEBSOCKETS:
                # The library makes its own connection.
                connected.close()
                return await websocket(
                    address, target.port, target.path or "/", target.host, context
                )
            return await asyncio.open_connection(
                sock=connected, ssl=context, server_hostname=target.host if context else None
            )
    except ssl.SSLCertVerificationError as error:
        shown = await presented_at(target, address)
        raise Failed(Step.TLS, tls_fault(error, target.host, shown)) from None
    except ProtocolError as error:
        raise Failed(Step.LOGIN, mqtt_fault(error)) from None
    except (OSError, TimeoutError, EOFError) as error:
        if context is None:
            raise Failed(Step.LOGIN, mqtt_fault(error)) from None
        raise Failed(Step.TLS, tls_fault(error, target.host, None)) from None


async def _logged_in(
    target: Target, connection: Connection, writer: Writer, timeout_s: float
) -> Session | None:
    if target.password_problem:
        raise Failed(Step.LOGIN, Fault("PASSWORD_UNUSABLE", target.password_problem))
    try:
        async with asyncio.timeout(timeout_s):
            client_id = f"mooring-probe-{secrets.token_hex(6)}"
            await connection.open(client_id, target.username, target.password)
    except BrokerRefusal as refusal:
        if target.username is None and refusal.code in REFUSES_LOGIN:
            writer.transport.abort()
            return None
        raise Failed(Step.LOGIN, mqtt_fault(refusal)) from None
    except FAILURES as error:
        raise Failed(Step.LOGIN, mqtt_fault(error)) from None
    if target.username is None:
        return Session(connection, writer, None)
    topic = f"mooring/probe/{target.broker_id}/{secrets.token_hex(8)}"
    try:
        async with asyncio.timeout(timeout_s):
            code = await connection.subscribe(topic)
    except FAILURES as error:
        raise Failed(Step.ROUND_TRIP, mqtt_fault(error)) from None
    if code >= SUBSCRIPTION_REFUSED:
        detail = f"the login may not subscribe to {topic}"
        raise Failed(Step.ROUND_TRIP, Fault("SUBSCRIPTION_REFUSED", detail))
    return Session(connection, writer, topic)
