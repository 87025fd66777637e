"""Receives announcements of changes in the database, and checks all the time that they arrive.

A service that keeps a part of the database in memory gets announcements of changes from PostgreSQL
(LISTEN). An open connection proves nothing: if a firewall dropped it, or a cable was pulled, it
stays open on this side for minutes. So the service sends a query on the connection several times a
second, and replaces a connection without a timely answer. A lost connection is noticed within
BEAT_S + ANSWER_S, and then a new connection is tried every RETRY_S; together that takes less than a
second. A new connection is used after it has received an announcement from another connection.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, TypeVar, cast

import psycopg
import structlog

from chassis.database import LIVENESS, Connection
from chassis.database_failures import described

log = structlog.get_logger(__name__)

Read = TypeVar("Read")
# A connection that listens, and the time at which LISTEN was sent.
Try: TypeAlias = tuple[Connection, float]

# The time from an answer to the next query.
BEAT_S = 0.15
# A connection is lost if the server takes longer to answer `SELECT 1`.
ANSWER_S = 0.5
# The time from one attempt to connect to the next. Attempts overlap, because after a lost packet an
# attempt may wait for seconds until TCP repeats the packet.
RETRY_S = 0.25
CONNECT_S = 3.0
# How long an announcement to a new connection may take.
PROOF_S = 1.0
# Announcements at shorter intervals cause one reading. Any role can send announcements, so very
# many of them must not cost more than ten readings a second.
OCCASION_S = 0.1
# How long announcements are gathered after the first one.
GATHER_S = 0.02
# How often a reading is started again at most. Without a limit, it would never end if connections
# keep breaking.
READ_AGAIN = 2


class _Turn:
    """An event that happens repeatedly. Tasks can wait for the next time."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def next(self) -> "asyncio.Future[None]":
        """A future that is done when the event happens. Do not cancel it, because other tasks wait
        for it too.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    def end(self) -> None:
        """Wakes all waiting tasks."""
        if self._next is not None:
            self._next.set_result(None)
            self._next = None


class Listener:
    """One connection that receives announcements of the database. It is replaced when it is lost.

    One loop waits for each `occasion`, and reads again.
    """

    def __init__(
        self, url: str, channel: str, forget: Iterable[Callable[[], Awaitable[None]]]
    ) -> None:
        """`url` is a libpq URL, `channel` an identifier.

        `forget` is called when a lost connection has been replaced: pooled connections to the same
        server are probably lost too, and each would be noticed only after a wait.
        """
        self._url = url
        self._channel = channel
        self._forget = tuple(forget)
        self._is_listening = False
        # Whether it was logged that new connections receive no announcements.
        self._is_known_deaf = False
        # The time at which the last answered query was sent.
        self._proved_at = 0.0
        self._occasion = asyncio.Event()
        # When `occasion` returned last.
        self._occasion_at = float("-inf")
        # This event is the next answer to a query, or the loss of the connection.
        self._next_proof = _Turn()
        # This event is a new connection.
        self._replaced = _Turn()
        self.connections = 0
        self.announcements = 0

    @property
    def is_listening(self) -> bool:
        """Whether all changes until a moment ago (see the module) were announced here."""
        return self._is_listening

    @property
    def heard(self) -> tuple[int, int]:
        """A value that changes whenever data may have changed: with each announcement and with each
        new connection.
        """
        return self.connections, self.announcements

    async def run(self) -> None:
        """Listens until it is cancelled."""
        while True:
            connection, self._proved_at = await self._connected()
            try:
                if self.connections:
                    await asyncio.gather(*(forget() for forget in self._forget))
                self.connections += 1
                self._is_listening, self._is_known_deaf = True, False
                self._replaced.end()
                self._occasion.set()
                await self._hear(connection)
            except (psycopg.Error, TimeoutError) as error:
                log.warning(
                    "the connection that receives announcements of the database is lost",
                    **described(error),
                )
            finally:
                self._is_listening = False
                self._next_proof.end()
                self._occasion.set()
                await connection.close()

    async def occasion(self, within_s: float) -> None:
        """Returns when it is time to read again: a change was announced or may have been missed, or
        the connection was lost or could not be made. It returns after `within_s` at the latest, and
        at most once in OCCASION_S.
        """
        await asyncio.sleep(self._occasion_at + OCCASION_S - _now())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._occasion.wait()
        self._occasion.clear()
        self._occasion_at = _now()

    async def caught_up(self) -> None:
        """Returns when all changes that were committed before the call were announced here, or when
        there is no working connection.
        """
        asked_at = _now()
        while self._is_listening and self._proved_at < asked_at:
            await asyncio.wait([self._next_proof.next()])

    async def reading(self, read: Callable[[], Awaitable[Read]]) -> Read:
        """The result of `read`. If the listening connection is replaced meanwhile, `read` is
        started again on another connection, because the first may hang. The last attempt has no
        time limit. Raises the errors of `read`.
        """
        for _ in range(READ_AGAIN):
            task: asyncio.Future[Any] = asyncio.ensure_future(read())
            either = (task, self._replaced.next())
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    return cast("Read", task.result())
            finally:
                await _give_up(task)
        return await read()

    async def _connected(self) -> Try:
        """The connection of the first attempt that succeeds."""
        tries: set[asyncio.Task[Try]] = set()
        try:
            while True:
                tries.add(asyncio.create_task(self._try()))
                done, _ = await asyncio.wait(
                    tries, timeout=RETRY_S, return_when=asyncio.FIRST_COMPLETED
                )
                tries -= {ended for ended in done if ended.exception() is not None}
                if succeeded := next(iter(done & tries), None):
                    await _close_all(tries - {succeeded})
                    tries = {succeeded}
                    break
                self._occasion.set()
                if done:
                    await asyncio.sleep(RETRY_S)
        except asyncio.CancelledError:
            await _close_all(tries)
            raise
        return succeeded.result()

    async def _try(self) -> Try:
        async with asyncio.timeout(CONNECT_S):
            connection = await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, application_name="mooring listener", **LIVENESS
            )
            try:
                asked_at = _now()
                await connection.execute(f"LISTEN {self._channel}".encode())
                await self._prove(connection)
            except BaseException:
                await connection.close()
                raise
        return connection, asked_at

    async def _prove(self, connection: Connection) -> None:
        """Returns when `connection` has received an announcement from another connection. A pooler
        that shares sessions between clients (PgBouncer in transaction mode) accepts LISTEN, but
        delivers no announcements to a client outside of a transaction. An announcement from the
        connection itself would come with the answer to its own statement, and prove nothing. Raises
        `TimeoutError`.
        """
        channel = f"proof_{secrets.token_hex(8)}"
        await connection.execute(f"LISTEN {channel}".encode())
        async with await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, application_name="mooring listener proof", **LIVENESS
        ) as other:
            # An announcement is not stored, so no standby needs it.
            await other.execute("SET synchronous_commit = off")
            await other.execute(f"NOTIFY {channel}".encode())
            try:
                async with asyncio.timeout(PROOF_S):
                    async for heard in connection.notifies():
                        if heard.channel == channel:
                            break
                        self.announcements += 1
            except TimeoutError:
                if not self._is_known_deaf:
                    log.warning("announcements of the database do not arrive: is there a pooler?")
                self._is_known_deaf = True
                raise
        await connection.execute(f"UNLISTEN {channel}".encode())

    async def _hear(self, connection: Connection) -> None:
        """Receives announcements. Raises `TimeoutError` or the driver's error when the connection
        is lost.
        """
        while True:
            before = self.announcements
            await self._announced(connection, within_s=BEAT_S)
            if self.announcements > before:
                # More announcements may follow, and are read together.
                await asyncio.sleep(GATHER_S)
            asked_at = _now()
            await _answered(connection.execute("SELECT 1"))
            # Announcements of commits before the query arrive before its answer.
            await self._announced(connection, within_s=0)
            self._proved_at = asked_at
            self._next_proof.end()

    async def _announced(self, connection: Connection, within_s: float) -> None:
        async for _ in connection.notifies(timeout=within_s, stop_after=1):
            self.announcements += 1
            self._occasion.set()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _answered(question: Awaitable[Any]) -> None:
    """Waits for the answer. Raises `TimeoutError` if it takes longer than ANSWER_S."""
    task = asyncio.ensure_future(question)
    try:
        # The time is divided into two halves: if this process was stopped for a while, the first
        # half is over, but an answer that has arrived is found in the second half.
        for _ in range(2):
            await asyncio.wait([task], timeout=ANSWER_S / 2)
            if task.done():
                task.result()
                return
        raise TimeoutError
    finally:
        await _give_up(task)


async def _close_all(tries: Iterable[asyncio.Task[Try]]) -> None:
    for begun in tries:
        await _give_up(begun)
        if not begun.cancelled() and begun.exception() is None:
            connection, _ = begun.result()
            await connection.close()


async def _give_up(task: "asyncio.Future[Any]") -> None:
    """Ends the task, even if it waits for a lost server. After the first cancellation, psycopg
    sends a cancel request and waits for seconds; after the second, it closes the connection.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.02)
