"""PostgreSQL: connections, transactions, and the check of the schema's revision."""

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

import psycopg
import structlog
import tenacity
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import event, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from chassis.database_failures import ends_session, translated
from chassis.errors import Unavailable

# The most frequent statements use the driver directly, without the layer that builds statements.
Row: TypeAlias = tuple[Any, ...]
Connection = psycopg.AsyncConnection[Row]
Pool = AsyncConnectionPool[Connection]

log = structlog.get_logger(__name__)

STATEMENT_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_MS = 2_000
# A server that hangs does not apply its own time limits. After this time, the connection is closed.
CLIENT_TIMEOUT_S = 8.0
START_PATIENCE_S = 30.0
POOL_SIZE = 4


# With these options, a connection fails if the server has disappeared without closing it, or does
# not accept it.
LIVENESS: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


OPTIONS = (
    f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
    " -c idle_in_transaction_session_timeout=3000 -c timezone=UTC"
)
# For connections whose statements find every row of a large table by an index. The planner does not
# know how few devices of a fleet a broker has. And a prepared plan does not change when the table
# grows: reading the whole table was cheap when the plan was made, but becomes expensive.
BY_INDEX = "-c enable_seqscan=off"


def pool_of(url: str) -> Pool:
    """A pool of connections for frequent statements. The caller opens it."""
    return AsyncConnectionPool(
        url,
        kwargs={
            **LIVENESS,
            "autocommit": True,
            "prepare_threshold": 0,
            "options": f"{OPTIONS} {BY_INDEX}",
        },
        configure=_watch_commits,
        min_size=1,
        max_size=POOL_SIZE,
        timeout=1.0,
        # After this time the pool stops trying to reconnect. Each request for a connection makes it
        # try again.
        reconnect_timeout=1.0,
        open=False,
    )


def engine_of(url: str, *, pool_size: int = 8, by_index: bool = False) -> AsyncEngine:
    """The pool of a service's connections to the database that a libpq URL names.

    With `by_index`, the planner does not read whole tables if there is an index. If the server of a
    connection does not accept writes any more, all connections are closed.
    """
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2.0,
        # Errors do not show the values of statements, which may come from devices.
        hide_parameters=True,
        connect_args={
            **LIVENESS,
            "options": f"{OPTIONS} {BY_INDEX}" if by_index else OPTIONS,
        },
    )

    @event.listens_for(engine.sync_engine, "connect")
    def watch_commits(adapted: Any, _: ConnectionPoolEntry) -> None:
        adapted.driver_connection.add_notice_handler(_Commits(adapted.driver_connection).hear)

    @event.listens_for(engine.sync_engine, "handle_error")
    def close_ended(context: ExceptionContext) -> None:
        if ends_session(context.original_exception):
            context.is_disconnect = True

    return engine


def forgetting(engine: AsyncEngine) -> Callable[[], Awaitable[None]]:
    """A function to call when the pooled connections are probably lost. Then each older connection
    is closed at its next use, and no statement waits for a lost connection.
    """
    lost_at = 0.0

    @event.listens_for(engine.sync_engine, "connect")
    def stamp(_: object, record: ConnectionPoolEntry) -> None:
        record.info["made_at"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def refuse(_: object, record: ConnectionPoolEntry, __: object) -> None:
        if record.info.get("made_at", 0.0) < lost_at:
            raise InvalidatePoolError

    async def forget() -> None:
        nonlocal lost_at
        lost_at = time.monotonic()

    return forget


class _Commits:
    """Notices that a commit did not wait for the synchronous standby, although it should have.

    PostgreSQL reports this in a warning only, and the next leader may lack the commit.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = weakref.ref(connection)

    def hear(self, notice: psycopg.errors.Diagnostic) -> None:
        # The warning's text may be translated, so the name of the function is compared.
        connection = self._connection()
        if connection is not None and notice.source_function == "SyncRepWaitForLSN":
            _only_local.add(connection)


# The connections whose last commit did not reach the standby.
_only_local: "weakref.WeakSet[Connection]" = weakref.WeakSet()


async def _watch_commits(connection: Connection) -> None:
    connection.add_notice_handler(_Commits(connection).hear)


def _demand_durable(connection: Connection) -> None:
    """Raises `psycopg.OperationalError` if the last commit did not reach the standby."""
    if connection in _only_local:
        _only_local.discard(connection)
        log.warning("a commit is on this server alone: its standby did not confirm it")
        raise psycopg.OperationalError("the synchronous standby did not confirm the commit")


@contextlib.asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection for reads that need no common transaction."""
    with translated():
        async with asyncio.timeout(CLIENT_TIMEOUT_S), engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")


@contextlib.asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction, which is committed if the block raises no error."""
    with translated():
        async with asyncio.timeout(CLIENT_TIMEOUT_S), engine.connect() as connection:
            async with connection.begin():
                yield connection
            raw = await connection.get_raw_connection()
            _demand_durable(cast("Connection", raw.driver_connection))


@contextlib.asynccontextmanager
async def planned_anew(connection: AsyncConnection) -> AsyncIterator[None]:
    """In this block, no statement is prepared, so PostgreSQL plans each one with its values.

    The setting `plan_cache_mode = force_custom_plan` would do that too, but also for the checks of
    foreign keys, which would be planned again for every row.
    """
    raw = await connection.get_raw_connection()
    driver = cast("Connection", raw.driver_connection)
    before, driver.prepare_threshold = driver.prepare_threshold, None
    try:
        yield
    finally:
        driver.prepare_threshold = before


async def take_turns(connection: AsyncConnection, what: str) -> None:
    """Waits until no other transaction changes `what`, and holds the lock until the commit.

    `what` is a row of the table `turns`, which only the services may lock. A transaction that
    changes brokers, certificates, fleets or allowances calls this first, with `placement`. Triggers
    lock the only row of `placement_version` at the first change. Without this lock, two such
    transactions could each wait for a row that the other has locked, which is a deadlock.
    """
    await connection.execute(
        text("SELECT FROM turns WHERE name = :what FOR UPDATE"), {"what": what}
    )


async def lock_shared(connection: AsyncConnection, what: str) -> None:
    """Waits until no transaction changes `what`, and prevents changes of it until the commit.
    Transactions that call this do not wait for one another.
    """
    await connection.execute(text("SELECT FROM turns WHERE name = :what FOR SHARE"), {"what": what})


def text_array(values: Iterable[str]) -> str:
    """PostgreSQL's text form of an array of values that need no escaping. Values are quoted,
    because PostgreSQL reads an unquoted null, in upper or lower case, as NULL.
    """
    joined = '","'.join(values)
    return f'{{"{joined}"}}' if joined else "{}"


async def fetched(pool: Pool, statement: str, values: Sequence[Any]) -> list[Row]:
    """The rows of one statement, which is a transaction by itself. Raises `Unavailable`, or the
    driver's error if the values or the statement are wrong.
    """
    with translated():
        async with asyncio.timeout(CLIENT_TIMEOUT_S):
            connection = await pool.getconn()
            try:
                cursor = await connection.execute(statement.encode(), values)
                rows = await cursor.fetchall() if cursor.description else []
                _demand_durable(connection)
            except psycopg.Error as error:
                await _close_ended(connection, error)
                raise
            else:
                return rows
            finally:
                await pool.putconn(connection)


@contextlib.asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction on one of the pool's connections, committed if the block raises no error."""
    with translated():
        async with asyncio.timeout(CLIENT_TIMEOUT_S), pool.connection() as connection:
            try:
                async with connection.transaction():
                    yield connection
                _demand_durable(connection)
            except psycopg.Error as error:
                await _close_ended(connection, error)
                raise


async def _close_ended(connection: Connection, error: psycopg.Error) -> None:
    """Closes a connection after an error that ends its session. The pool replaces it; the other
    connections are closed when they fail.
    """
    if ends_session(error):
        await connection.close()


async def is_reachable(engine: AsyncEngine) -> bool:
    """Whether the database answers now."""
    try:
        async with asyncio.timeout(3), reading(engine) as connection:
            await connection.execute(text("SELECT 1"))
    except (Unavailable, TimeoutError, DBAPIError):
        return False
    return True


async def require_schema(engine: AsyncEngine, revision: str, *, role: str) -> None:
    """Waits for the database, then checks that its schema has the `revision` of this program, and
    that the connection has the role `role`: another role may have more rights than the process
    needs. Raises `SystemExit`, because with another schema a service could damage data.
    """
    found = user = None
    try:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Unavailable),
            stop=tenacity.stop_after_delay(START_PATIENCE_S),
            wait=tenacity.wait_random_exponential(0.1, max=2),
            reraise=True,
        ):
            with attempt:
                async with reading(engine) as connection:
                    user = await connection.scalar(text("SELECT session_user"))
                    if user == role:
                        found = await connection.scalar(
                            text("SELECT version_num FROM alembic_version")
                        )
    except Unavailable:
        raise SystemExit("the database cannot be reached") from None
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.errors.UndefinedTable):
            raise
    if user != role:
        raise SystemExit(f"DATABASE_URL is for the role {user}: this process uses {role}")
    if found != revision:
        raise SystemExit(
            f"the database's schema is {found or 'empty'}, this service knows {revision}:"
            " run the migrations of this version"
        )
