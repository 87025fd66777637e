"""Any role can forge a notification of PostgreSQL, and a pooler can lose it: it is only a hint."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg

from broker_service.placements import store as placements
from chassis.listening import OCCASION_S, Listener
from chassis.process import background
from registry_service.administration.tokens import store as tokens
from registry_service.admission import change_store as access
from registry_service.admission.reconciler import held_store
from registry_service.admission.reconciler import store as enforcement
from tests.brokers import asking
from tests.stack import Database, Stack

CHANNEL = "placement"
PATIENCE_S = 20.0
MOMENT_S = 10.0


async def heard(listener: Listener) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not listener.is_listening:
            await asyncio.sleep(0.01)


async def test_a_flood_does_not_cause_a_read_for_each_notification(database: Database) -> None:
    listener = Listener(database.url("mooring_broker"), CHANNEL, [])
    stop = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        with psycopg.connect(database.url("mqtt_reader"), autocommit=True) as attacker:
            while not stop.is_set():
                attacker.execute(f"NOTIFY {CHANNEL}, '{sent}'".encode())
                sent += 1

    async with background(listener.run()):
        await heard(listener)
        flooding = asyncio.create_task(asyncio.to_thread(flood))
        loop = asyncio.get_running_loop()
        began, readings = loop.time(), 0
        try:
            while loop.time() - began < 2:
                await listener.occasion(within_s=5)
                readings += 1
            took = loop.time() - began
        finally:
            stop.set()
            await flooding
    assert sent > 100
    # They are received, and so would be a real one.
    assert listener.announcements > 100
    assert 2 <= readings <= took / OCCASION_S + 2


async def test_a_change_is_noticed_in_a_flood(database: Database) -> None:
    """A change that was committed before a read is announced within a second of it."""
    listener = Listener(database.url("mooring_broker"), CHANNEL, [])
    async with background(listener.run()):
        await heard(listener)
        with psycopg.connect(database.url("mqtt_reader")) as attacker:
            attacker.execute(
                "SELECT pg_notify(%s, n::text) FROM generate_series(1, 50000) AS n", [CHANNEL]
            )
            attacker.commit()
        await listener.occasion(within_s=5)
        database.execute(f"NOTIFY {CHANNEL}, 'true'")
        async with asyncio.timeout(PATIENCE_S):
            await listener.caught_up()
            assert listener.is_listening
        assert listener.announcements == 50_001


# As fast as the server can: one transaction each with different texts, because PostgreSQL drops a
# notification that equals the previous one.
FLOOD = """
DO $$ DECLARE n bigint := 0; BEGIN
    LOOP
        n := n + 1;
        PERFORM pg_notify(channel, n || repeat('x', 100)) FROM unnest(ARRAY[{channels}]) AS channel;
        COMMIT;
    END LOOP;
END $$
"""
CHANNELS = (
    *(placements.CHANNEL, tokens.CHANNEL, access.CHANNEL),
    *(enforcement.RECONCILER_CHANNEL, held_store.HELD_CHANNEL),
)


@contextlib.contextmanager
def flooding(database: Database, connections: int) -> Iterator[None]:
    """Notifies on every channel as mqtt_reader until the end of the block."""

    def flood(attacker: psycopg.Connection) -> None:
        with contextlib.suppress(psycopg.errors.QueryCanceled):
            attacker.execute(FLOOD.format(channels=", ".join(f"'{c}'" for c in CHANNELS)).encode())

    with contextlib.ExitStack() as exits:
        opened = [
            exits.enter_context(psycopg.connect(database.url("mqtt_reader"), autocommit=True))
            for _ in range(connections)
        ]
        threads = exits.enter_context(ThreadPoolExecutor(connections))
        for attacker in opened:
            attacker.execute("SET statement_timeout = 0")
            threads.submit(flood, attacker)
        try:
            yield
        finally:
            for attacker in opened:
                attacker.cancel_safe()


async def test_a_change_takes_effect_at_once_in_a_flood(stack: Stack) -> None:
    """Changes of a broker for devices, of a revoked token, and of a device at a broker
    that asks.
    """
    token = (await stack.admin("POST", "/tokens", json={"name": "t", "role": "viewer"})).json()
    shown = {"Authorization": f"Bearer {token['token']}"}
    mqtt = (await stack.register("d")).json()["mqtt"]
    took_s: dict[str, list[float]] = {}

    async def until(what: str, is_so: Callable[[], Awaitable[bool]]) -> None:
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while not await is_so():
                await asyncio.sleep(0.005)
        took_s.setdefault(what, []).append(time.monotonic() - began)

    async with asking(stack) as brokers:

        async def is_at(host: str) -> bool:
            return bool((await stack.connection("d")).json()["brokerConfig"]["host"] == host)

        async def is_let_in(expected: bool) -> bool:
            return await brokers.connects(mqtt["username"], mqtt["password"]) is expected

        async def is_good() -> bool:
            return bool((await stack.http.get("/api/v1/fleets", headers=shown)).status_code == 200)

        assert await is_let_in(True)
        assert await is_good()
        with flooding(stack.database, 2):
            for n in range(4):
                move = "UPDATE mqtt_broker_config SET host = %s"
                stack.database.execute(move, f"h{n}.example.com", role="mooring_operator")
                await until("broker", lambda: is_at(f"h{n}.example.com"))  # noqa: B023
                for is_active in (False, True):
                    stack.database.execute("UPDATE devices SET is_active = %s", is_active)
                    await until("device", lambda: is_let_in(is_active))  # noqa: B023
            revoke = "UPDATE api_tokens SET is_active = false WHERE name = 't'"
            stack.database.execute(revoke)
            await until("token", lambda: _negated(is_good()))
    for what, each in took_s.items():
        # Alone this takes a second at most. With other tests beside it, processes wait for a
        # processor for seconds.
        assert max(each) < MOMENT_S, (what, took_s)


async def _negated(answer: Awaitable[bool]) -> bool:
    return not await answer


class Deaf:
    """A proxy that drops notifications to a connection without a statement under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.is_deaf = True
        self.dropped = 0

        self.links: set[asyncio.Task[None]] = set()

    async def link(self, client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.links.add(task)
        server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        asks = asyncio.Event()

        async def up() -> None:
            while data := await client.read(65_536):
                asks.set()
                to_server.write(data)

        async def down() -> None:
            while True:
                head = await server.readexactly(5)
                body = await server.readexactly(int.from_bytes(head[1:]) - 4)
                if head[:1] == b"A" and self.is_deaf and not asks.is_set():
                    self.dropped += 1
                    continue
                if head[:1] == b"Z":
                    asks.clear()
                writer.write(head + body)

        halves = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Only `deafened` cancels a link, at the end of the test.
            return
        finally:
            for end in (writer, to_server):
                end.transport.abort()
            self.links.discard(task)
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)


@contextlib.asynccontextmanager
async def deafened(database: Database, role: str) -> AsyncIterator[tuple[Deaf, str]]:
    proxy = Deaf(database.server.port)
    server = await asyncio.start_server(proxy.link, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = database.url(role).replace(f":{database.server.port}/", f":{port}/")
    try:
        yield proxy, f"{url}?sslmode=disable&gssencmode=disable"
    finally:
        server.close()
        for task in list(proxy.links):
            task.cancel()
        await asyncio.gather(*proxy.links, return_exceptions=True)


async def test_a_connection_that_receives_nothing_is_not_trusted(database: Database) -> None:
    async with deafened(database, "mooring_broker") as (proxy, url):
        listener = Listener(url, CHANNEL, [])
        async with background(listener.run()):
            async with asyncio.timeout(PATIENCE_S):
                while proxy.dropped < 3:
                    assert not listener.is_listening
                    await asyncio.sleep(0.01)
            # The owner of the listener reads all the same, at every retry.
            await listener.occasion(within_s=5)
            assert listener.connections == 0
            proxy.is_deaf = False
            await heard(listener)
