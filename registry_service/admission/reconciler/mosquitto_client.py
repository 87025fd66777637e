"""A client of a Mosquitto's dynamic security plugin, over its control topic.

https://mosquitto.org/documentation/dynamic-security/

Each call makes its own connection, so none can be lost in between. All waits are bounded. Commands
are sent with QoS 0: with QoS 1 the answer comes about 40 ms after the acknowledgement (Nagle's
algorithm), which adds no information.
"""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import structlog
from msgspec import Struct

from chassis.address_policy import DEFAULT, AddressPolicy
from chassis.connecting import AddressRefused, connected
from chassis.errors import LostRace
from chassis.mqtt import BrokerRefusal, Connection, ProtocolError
from registry_service.admission.reconciler.dynamic_security import Actual, Command
from registry_service.admission.reconciler.json_limits import decoded
from registry_service.admission.reconciler.listings import Moved, Reading, read_client
from registry_service.admission.reconciler.planning import Plan
from registry_service.errors import (
    CommandsRefused,
    ControlNotAllowed,
    ControlSilent,
    ControlUnreachable,
    ControlUnreadable,
)

log = structlog.get_logger(__name__)

CONTROL = "$CONTROL/dynamic-security/v1"
# Every client that may read this topic receives the answers to all clients.
ANSWERS = f"{CONTROL}/response"
# The number of commands in the first message, and in the largest and the smallest later one.
BATCH, MOST, LEAST = 25, 200, 5
# While the broker carries out a message, it does nothing else. Mosquitto 2.0 writes its whole file
# for every command, 2.1 once for each message. So messages grow as long as they are answered within
# QUICK_S, and shrink if one takes longer than SLOW_S.
QUICK_S, SLOW_S = 0.05, 0.2
READINGS = 3
# MQTT 5, 3.2.2.2: bad user name or password, not authorized, banned.
NOT_ALLOWED = (0x86, 0x87, 0x8A)
# MQTT 5, 3.9.3: from this reason code on, a subscription has failed.
FAILED = 0x80
# The item to remove does not exist.
SETTLED = {"deleteClient": "Client not found", "deleteRole": "Role not found"}


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """The broker's address, and a login that may use the control topic.

    Without `ca_pem` the CAs of this machine are trusted.
    """

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    use_tls: bool = False
    ca_pem: str | None = None
    verify_certificate: bool = True
    connect_timeout_s: float = 10.0
    # The time for one message of commands.
    answer_timeout_s: float = 60.0
    policy: AddressPolicy = DEFAULT


# A function that gets the commands of a message, and whether each was carried out.
Then: TypeAlias = Callable[[Sequence[tuple[Command, bool]]], Awaitable[None]]


class Answer(Struct):
    """The answer to one command."""

    correlation: str = msgspec.field(name="correlationData", default="")
    error: str = ""
    data: Any = None


class Answers(Struct):
    """The answer to one message."""

    responses: list[Answer]


class DynamicSecurity:
    """One broker's plugin.

    Every call raises `ControlUnreachable`, `ControlNotAllowed`, `ControlSilent`,
    `ControlUnreadable`.
    """

    def __init__(self, settings: ControlSettings) -> None:
        """Makes no connection yet. Raises `ControlUnreachable` for a CA that cannot be read."""
        self._settings = settings
        self._tls = _tls(settings) if settings.use_tls else None

    async def state(self) -> Actual:
        """What the plugin holds: Mooring's clients and others. Raises `LostRace` if the lists keep
        changing while they are read.
        """
        async with self._conversation() as conversation:
            for _ in range(READINGS):
                reading = Reading()
                try:
                    while questions := reading.questions():
                        answers = await conversation.ask(questions)
                        answered = list(zip(questions, answers, strict=True))
                        _require_done(answered)
                        for question, answer in answered:
                            reading.take(question.name, answer.data)
                except Moved:
                    continue
                except msgspec.ValidationError as error:
                    raise ControlUnreadable(f"a list is not as documented: {error}") from None
                return reading.actual()
        raise LostRace("the broker's clients and roles are being changed all the time")

    async def apply(self, plan: Plan, then: Then | None = None) -> None:
        """Sends all commands. Raises `CommandsRefused` if the broker refused some.

        After each message `then` is called with its commands, and whether each was carried out. An
        error of `then` ends the call, and is raised.
        """
        async with self._conversation() as conversation:
            await conversation.send(plan.commands, then)

    async def disable(self, usernames: Collection[str]) -> None:
        """Ends the sessions of the given clients that are Mooring's, and disables the clients. The
        next plan removes them, or enables them if they are wanted.
        """
        async with self._conversation() as conversation:
            questions = [Command("getClient", one, {"username": one}) for one in usernames]
            ours = [
                question.about
                async for question, answer in conversation.asked(questions)
                if not answer.error and _is_ours(answer)
            ]
            await conversation.send(
                [Command("disableClient", one, {"username": one}) for one in ours]
            )

    @asynccontextmanager
    async def _conversation(self) -> AsyncIterator["_Conversation"]:
        settings = self._settings
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(settings.connect_timeout_s):
                    connection = Connection(
                        *await connected(settings.host, settings.port, settings.policy, self._tls)
                    )
                    await stack.enter_async_context(connection.kept_alive())
                    await connection.open(
                        f"mooring-{secrets.token_hex(8)}", settings.username, settings.password
                    )
                    code = await connection.subscribe(ANSWERS)
                if code >= FAILED:
                    raise ControlNotAllowed("the login may not read the broker's control topic")
                yield _Conversation(connection, settings.answer_timeout_s)
        except BrokerRefusal as error:
            if error.code in NOT_ALLOWED:
                raise ControlNotAllowed("the broker does not accept the login") from error
            raise ControlUnreachable("the broker refuses the connection") from error
        except ProtocolError as error:
            raise ControlUnreadable(
                f"the broker does not speak MQTT 5 as agreed: {error}"
            ) from error
        except AddressRefused as error:
            raise ControlUnreachable(str(error)) from error
        except (TimeoutError, OSError, EOFError, UnicodeError) as error:
            raise ControlUnreachable("there is no connection to the broker") from error


class _Conversation:
    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        """Sends one message; returns an answer to each of its commands."""
        token = secrets.token_hex(8)
        documents = [
            {"command": command.name, "correlationData": f"{token}:{index}", **command.arguments}
            for index, command in enumerate(commands)
        ]
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connection.publish(
                    CONTROL, msgspec.json.encode({"commands": documents})
                )
                while True:
                    payload = await self._connection.message(ANSWERS)
                    # Answers to other clients arrive on the same topic.
                    if token.encode() in payload:
                        return _read(payload, token, len(commands))
        except TimeoutError:
            pass
        raise ControlSilent(
            "the broker does not answer on its control topic: it is busy, or has no dynamic"
            " security plugin, or the login may not give it commands"
        )

    async def asked(self, commands: Sequence[Command]) -> AsyncIterator[tuple[Command, Answer]]:
        async for batch, answers in self._messages(commands):
            for pair in zip(batch, answers, strict=True):
                yield pair

    async def send(self, commands: Sequence[Command], then: Then | None = None) -> None:
        """Sends all commands. Raises `CommandsRefused` after the last one if some were refused."""
        answered: list[tuple[Command, Answer]] = []
        async for batch, answers in self._messages(commands):
            pairs = list(zip(batch, answers, strict=True))
            answered += pairs
            done = [(command, _is_done(command, answer)) for command, answer in pairs]
            if then is not None:
                await then(done)
        _require_done(answered)

    async def _messages(
        self, commands: Sequence[Command]
    ) -> AsyncIterator[tuple[Sequence[Command], list[Answer]]]:
        """Yields each message with its answers."""
        loop = asyncio.get_running_loop()
        size, begin = BATCH, 0
        while batch := commands[begin : begin + size]:
            begun = loop.time()
            answers = await self.ask(batch)
            size = next_size(size, loop.time() - begun)
            begin += len(batch)
            yield batch, answers


def next_size(size: int, took_s: float) -> int:
    """The number of commands in the next message, after one of `size` took so long."""
    if took_s < QUICK_S:
        return min(2 * size, MOST)
    return max(size // 2, LEAST) if took_s > SLOW_S else size


def _read(payload: bytes, token: str, count: int) -> list[Answer]:
    try:
        answers = decoded(payload, Answers).responses
        by_correlation = {answer.correlation: answer for answer in answers}
        return [by_correlation[f"{token}:{index}"] for index in range(count)]
    except (msgspec.MsgspecError, UnicodeError, KeyError) as error:
        raise ControlUnreadable("the broker's answer is not as documented") from error


def _require_done(answered: Iterable[tuple[Command, Answer]]) -> None:
    refused = [
        f"{command.name} {command.about}: {answer.error}"
        for command, answer in answered
        if not _is_done(command, answer)
    ]
    if refused:
        log.warning("the broker has refused commands", count=len(refused), first=refused[:10])
        raise CommandsRefused(
            f"the broker has refused some commands, the first being {refused[0]}",
            usage={"commands": len(refused)},
        )


def _is_done(command: Command, answer: Answer) -> bool:
    return not answer.error or SETTLED.get(command.name) == answer.error


def _is_ours(answer: Answer) -> bool:
    try:
        return read_client(answer.data).is_ours
    except msgspec.ValidationError as error:
        raise ControlUnreadable(f"a client is not as documented: {error}") from None


def _tls(settings: ControlSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=settings.ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise ControlUnreachable("the broker's CA certificate cannot be read") from error
    if not settings.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
