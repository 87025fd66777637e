"""Tests a broker as a device would use it: its name, its port, its certificate, MQTT, a message.

Each step makes connections of its own. Everything is bounded: a hostile broker costs some seconds.
"""

import asyncio
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, Sequence
from typing import NoReturn

from broker_service.brokers.testing.outcomes import (
    REFUSES_LOGIN,
    Fault,
    Outcome,
    Presented,
    State,
    Step,
    mqtt_fault,
    presented,
    tls_fault,
)
from broker_service.brokers.testing.targets import Target, tls_of
from broker_service.brokers.testing.websocket import websocket
from chassis.address_policy import AddressPolicy
from chassis.connecting import AddressRefused, resolved
from chassis.mqtt import V3_1_1, BrokerRefusal, Connection, ProtocolError, Reader, Writer

# The time for each attempt to connect, and for each answer.
STEP_S = 5.0
# MQTT 3.1.1, 3.9.3.
SUBSCRIPTION_REFUSED = 0x80
WEBSOCKETS = frozenset({"ws", "wss"})
CA_UNREADABLE = "CA_UNREADABLE", "the broker's CA certificate cannot be read"
# What a connection raises, besides `ssl.SSLError`, which is an `OSError`.
FAILURES = (OSError, EOFError, TimeoutError, ProtocolError, BrokerRefusal)


class _Failed(Exception):
    """A step has failed."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


async def trial(target: Target, policy: AddressPolicy) -> AsyncGenerator[Outcome, None]:
    """The outcome of each step as it happens. After a failure the later steps are skipped."""
    running = _Trial(target, policy)
    has_failed = False
    for step, run in (
        (Step.RESOLVE, running.resolve),
        (Step.CONNECT, running.connect),
        (Step.TLS, running.check_tls),
        (Step.LOGIN, running.log_in),
        (Step.ROUND_TRIP, running.send_and_receive),
    ):
        if has_failed:
            yield Outcome(step, State.SKIPPED, "an earlier step failed")
            continue
        begun = time.perf_counter()
        try:
            state, detail = await run()
        except _Failed as failed:
            has_failed = True
            state, detail = State.FAILED, failed.fault.detail
            reason = failed.fault.reason
        else:
            reason = ""
        seconds = 0.0 if state is State.SKIPPED else time.perf_counter() - begun
        yield Outcome(step, state, detail, reason, seconds)


class _Trial:
    """The steps; each returns its state and what it found, or raises `_Failed`."""

    def __init__(self, target: Target, policy: AddressPolicy) -> None:
        self._target = target
        self._policy = policy
        self._addresses: Sequence[str] = ()
        self._address = ""
        self._tls: ssl.SSLContext | None = None
        self._may_send = False

    async def resolve(self) -> tuple[State, str]:
        host = self._target.host
        try:
            self._addresses = await resolved(host, self._target.port, self._policy)
        except AddressRefused as error:
            raise _Failed(Fault("ADDRESS_REFUSED", str(error))) from None
        except TimeoutError:
            raise _Failed(Fault("NAME_SERVER_SILENT", "no name server answers in time")) from None
        except (OSError, UnicodeError):
            raise _Failed(Fault("NAME_UNKNOWN", f"no address is known for {host}")) from None
        return State.OK, ", ".join(self._addresses)

    async def connect(self) -> tuple[State, str]:
        port = self._target.port
        fault = Fault("UNREACHABLE", f"no address of {self._target.host} can be reached")
        for address in self._addresses:
            try:
                async with asyncio.timeout(STEP_S):
                    _, writer = await asyncio.open_connection(address, port)
            except ConnectionRefusedError:
                fault = Fault("PORT_CLOSED", f"{address} refuses connections to port {port}")
            except TimeoutError:
                fault = Fault(
                    "UNREACHABLE",
                    f"{address} does not answer at port {port}: is a firewall between?",
                )
            except OSError as error:
                fault = Fault("UNREACHABLE", f"{address}: {error.strerror or 'cannot be reached'}")
            else:
                writer.transport.abort()
                self._address = address
                return State.OK, f"{address}, port {port}"
        raise _Failed(fault)

    async def check_tls(self) -> tuple[State, str]:
        target = self._target
        if not target.use_tls:
            return State.SKIPPED, "the broker's protocol has no TLS"
        try:
            self._tls = tls_of(target)
        except ValueError:
            _fail(*CA_UNREADABLE)
        try:
            async with asyncio.timeout(STEP_S):
                _, writer = await self._open()
        except (OSError, TimeoutError) as error:
            shown = None
            if isinstance(error, ssl.SSLCertVerificationError):
                shown = await presented_at(target, self._address)
            raise _Failed(tls_fault(error, target.host, shown)) from None
        session = writer.get_extra_info("ssl_object")
        writer.transport.abort()
        certificate = presented(session.getpeercert(binary_form=True) or b"")
        ends = f", its certificate ends {certificate.not_after:%Y-%m-%d}" if certificate else ""
        unchecked = "" if target.verify_certificate else "; devices do not check the certificate"
        return State.OK, f"{session.version()}{ends}{unchecked}"

    async def log_in(self) -> tuple[State, str]:
        target = self._target
        if target.password_problem:
            raise _Failed(Fault("PASSWORD_UNUSABLE", target.password_problem))
        try:
            async with asyncio.timeout(STEP_S):
                _, writer = await self._logged_in()
        except BrokerRefusal as refusal:
            if target.username is None and refusal.code in REFUSES_LOGIN:
                return State.OK, "it answers MQTT, and refuses clients without a login"
            raise _Failed(mqtt_fault(refusal)) from None
        except FAILURES as error:
            raise _Failed(mqtt_fault(error)) from None
        writer.transport.abort()
        if target.username is None:
            return State.OK, "it answers MQTT, and accepts clients without a login"
        self._may_send = True
        return State.OK, f"logged in as {target.username}"

    async def send_and_receive(self) -> tuple[State, str]:
        if not self._may_send:
            return State.SKIPPED, "Mooring has no MQTT login at this broker"
        topic = f"mooring/probe/{self._target.broker_id}/{secrets.token_hex(8)}"
        payload = secrets.token_hex(16).encode()
        try:
            async with asyncio.timeout(STEP_S):
                connection, _ = await self._logged_in()
                async with connection.kept_alive():
                    if await connection.subscribe(topic) >= SUBSCRIPTION_REFUSED:
                        _fail("SUBSCRIPTION_REFUSED", f"the login may not subscribe to {topic}")
                    await connection.publish(topic, payload)
                    if await connection.message(topic) != payload:
                        _fail("MESSAGE_CHANGED", "another message came back than the one sent")
        except TimeoutError:
            _fail(
                "MESSAGE_LOST",
                f"a message did not come back: the login may publish and subscribe to {topic}?",
            )
        except FAILURES as error:
            raise _Failed(mqtt_fault(error)) from None
        return State.OK, f"a message on {topic} came back"

    async def _logged_in(self) -> tuple[Connection, Writer]:
        target = self._target
        reader: Reader
        writer: Writer
        if target.protocol in WEBSOCKETS:
            reader, writer = await websocket(
                self._address, target.port, target.path or "/", target.host, self._tls
            )
        else:
            reader, writer = await self._open()
        connection = Connection(reader, writer, version=V3_1_1)
        try:
            await connection.open(
                f"mooring-test-{secrets.token_hex(6)}", target.username, target.password
            )
        except BaseException:
            writer.transport.abort()
            raise
        return connection, writer

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self._tls
        return await asyncio.open_connection(
            self._address,
            self._target.port,
            ssl=context,
            server_hostname=self._target.host if context else None,
        )


async def presented_at(target: Target, address: str) -> Presented | None:
    """The certificate that the broker presents, to say what is wrong with it; None if there is
    none. Nothing is sent to the broker.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(STEP_S):
            _, writer = await asyncio.open_connection(
                address, target.port, ssl=context, server_hostname=target.host
            )
    except (OSError, TimeoutError):
        return None
    session = writer.get_extra_info("ssl_object")
    writer.transport.abort()
    return presented(session.getpeercert(binary_form=True) or b"")


def _fail(reason: str, detail: str) -> NoReturn:
    raise _Failed(Fault(reason, detail))
