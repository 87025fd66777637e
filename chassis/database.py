"""PostgreSQL: the engine, the schema a service knows, and what a failed statement means."""

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, TypeAlias, TypeVar, cast

import psycopg
import structlog
import tenacity
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import event, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from chassis.errors import Unavailable

# What the hot paths use: the driver itself, without the layer that builds statements.
DriverError = psycopg.Error
Row: TypeAlias = tuple[Any, ...]
Connection = psycopg.AsyncConnection[Row]
Pool = AsyncConnectionPool[Connection]

log = structlog.get_logger(__name__)

STATEMENT_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_MS = 2_000
# A server that hangs keeps neither of these promises; then the connection is given up.
CLIENT_TIMEOUT_S = 8.0
START_PATIENCE_S = 30.0
# More than a hot path has connections: all of them may have broken unseen.
MAX_TRIES = 6
TRIES_S = 2.0
POOL_SIZE = 4

Done = TypeVar("Done")
Failure: TypeAlias = DBAPIError | psycopg.Error | PoolTimeoutError | TimeoutError


# Notices a server that vanished without closing, or that does not take the connection.
LIVENESS: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


# What is taken in turns: rows of the table `turns`, which no role but the services' may lock.
PLACEMENT = "placement"
DEVICE_COUNTS = "device_counts"
BROKER_SECRETS = "broker_secrets"
USERNAMES = "usernames"
FIRST_ADMIN = "first_admin"

# The reason of an `Unavailable` that is about the database itself.
DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"


class FailureKind(Enum):
    """Why the database refused a statement, as far as a caller may act on it."""

    RACE = "race"  # deadlock, lock timeout, serialization: begin again
    LOST = "lost"  # no connection, or it broke: begin again, or say UNAVAILABLE
    DATA = "data"  # the values are at fault: the same statement never succeeds
    OURS = "ours"  # anything else is a mistake in this program


# The beginnings of the SQLSTATEs that are no mistake of ours (PostgreSQL documentation,
# appendix A); the longest that fits decides.
FAILURE_KINDS = {
    # Of the transaction: deadlocks, serialization, lock and statement timeouts, old snapshots.
    **dict.fromkeys(("40", "55P03", "57014", "72"), FailureKind.RACE),
    # Of the server: no connection, it stops or starts, it lacks resources, its disk or its files
    # fail, it does not let us in or lacks the database, it ended an idle session.
    **dict.fromkeys(
        ("08", "28", "3D", "53", "57P", "58", "XX", "25P03", "25P04"), FailureKind.LOST
    ),
    # It is a standby, or has become one in a failover.
    "25006": FailureKind.LOST,
    # A prepared statement that a migration, or a pooler between us, has made useless.
    **dict.fromkeys(("0A000", "26000", "42P05"), FailureKind.LOST),
    **dict.fromkeys(("22", "23"), FailureKind.DATA),
}
# No statement succeeds any more on the session that says so.
ENDED_SESSIONS = ("08", "57P", "25P03", "25P04", "25006", "0A000", "26000", "42P05")


OPTIONS = (
    f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
    " -c idle_in_transaction_session_timeout=3000 -c timezone=UTC"
)
# For connections whose statements find every row of a large table by an index. The planner does not
# know how few devices of a fleet a broker has, and a prepared plan outlives the size of the table
# that it was made for: reading the whole table was cheap then and is not now.
BY_INDEX = "-c enable_seqscan=off"


def pool_of(url: str) -> Pool:
    """Connections for a hot path, to be opened by whoever owns it."""
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
        # Whoever needs a connection asks for one; the pool does not try by itself for longer.
        reconnect_timeout=1.0,
        open=False,
    )


def engine_of(url: str, *, pool_size: int = 8, by_index: bool = False) -> AsyncEngine:
    """The pool of a service's connections to the database that a libpq URL names.

    `by_index` keeps the planner from reading whole tables where there is an index.
    A connection to a server that may not write any more is closed, and the others with it.
    """
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2.0,
        # Statements may quote what devices sent; their text is enough to find a fault.
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
    """What to call when the pooled connections are probably lost.

    Each that was made before is closed when it is wanted next, instead of being waited for.
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
    """Hears when a commit did not wait for the synchronous standby that it had to wait for.

    PostgreSQL says so in a warning only, and the next leader may lack what was committed.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = weakref.ref(connection)

    def hear(self, notice: psycopg.errors.Diagnostic) -> None:
        # The text may be translated; the name of the function is not.
        connection = self._connection()
        if connection is not None and notice.source_function == "SyncRepWaitForLSN":
            _only_local.add(connection)


# Connections whose last commit is on the leader alone.
_only_local: "weakref.WeakSet[Connection]" = weakref.WeakSet()


async def _watch_commits(connection: Connection) -> None:
    connection.add_notice_handler(_Commits(connection).hear)


def _demand_durable(connection: Connection) -> None:
    """Raises `psycopg.OperationalError` where the last commit is on the leader alone."""
    if connection in _only_local:
        _only_local.discard(connection)
        log.warning("a commit is on this server alone: its standby did not confirm it")
        raise psycopg.OperationalError("the synchronous standby did not confirm the commit")


def failure_kind_of(error: Failure) -> FailureKind:
    """What a failed statement means, by its SQLSTATE (PostgreSQL documentation, appendix A)."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return FailureKind.LOST
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, psycopg.Error):
        return FailureKind.LOST
    state = cause.sqlstate or ""
    for length in (5, 3, 2):
        if found := FAILURE_KINDS.get(state[:length]):
            return found
    if not state and isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)):
        return FailureKind.LOST
    return FailureKind.OURS


def ends_session(error: BaseException | None) -> bool:
    """Whether no statement can succeed on the connection that `error` came from."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is not None and state.startswith(ENDED_SESSIONS)


@contextlib.asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection for reads that need no transaction of their own."""
    with translated():
        async with asyncio.timeout(CLIENT_TIMEOUT_S), engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")


@contextlib.asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction, committed when the block ends well."""
    with translated():
        async with asyncio.timeout(CLIENT_TIMEOUT_S), engine.connect() as connection:
            async with connection.begin():
                yield connection
            raw = await connection.get_raw_connection()
            _demand_durable(cast("Connection", raw.driver_connection))


async def take_turns(connection: AsyncConnection, what: str) -> None:
    """Waits until no other transaction changes `what`, and keeps it to the commit.

    `what` is one of those above. For the beginning of a transaction. One that changes brokers,
    certificates, fleets or allowances takes `PLACEMENT`: their triggers hold the one row of
    `placement_version` from the first change on, and a transaction that then waits for another's
    row, while that one waits for this, is in a deadlock.
    """
    await connection.execute(
        text("SELECT FROM turns WHERE name = :what FOR UPDATE"), {"what": what}
    )


async def lock_shared(connection: AsyncConnection, what: str) -> None:
    """Waits until no transaction changes `what`, and lets none begin to until the commit.

    Transactions that call this do not wait for one another.
    """
    await connection.execute(text("SELECT FROM turns WHERE name = :what FOR SHARE"), {"what": what})


def text_array(values: Iterable[str]) -> str:
    """PostgreSQL's text form of an array, of values in which nothing needs escaping.

    They are quoted all the same: a bare null, in any case, would not be a value.
    """
    joined = '","'.join(values)
    return f'{{"{joined}"}}' if joined else "{}"


async def fetched(pool: Pool, statement: str, values: Sequence[Any]) -> list[Row]:
    """The rows of one statement, which is a transaction by itself. Made for the hot paths.

    Raises `Unavailable`, or the driver's error where the values or the statement are at fault.
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
    """A transaction on one of the pool's connections, committed when the block ends well."""
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
    """The pool replaces a connection that is closed; others of it fail in the same way."""
    if ends_session(error):
        await connection.close()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns a race or a lost connection into `Unavailable`; driver text goes to the log."""
    try:
        yield
    except (DBAPIError, psycopg.Error, PoolTimeoutError, TimeoutError) as error:
        kind = failure_kind_of(error)
        if kind in (FailureKind.DATA, FailureKind.OURS):
            raise
        log.warning("the database did not answer", refusal=kind.value, **described(error))
        raise Unavailable("the database cannot be reached", reason=DATABASE_UNAVAILABLE) from error


def described(error: Failure) -> dict[str, str]:
    """What a log may say of a failed statement: never its values, which PostgreSQL quotes."""
    orig = getattr(error, "orig", error)
    if not isinstance(orig, psycopg.Error):
        return {"error": type(error).__name__}
    return {
        "error": type(orig).__name__,
        "sqlstate": orig.sqlstate or "",
        "constraint": orig.diag.constraint_name or "",
        "cause": orig.diag.message_primary or "",
    }


async def retried(work: Callable[[], Awaitable[Done]]) -> Done:
    """What `work` returns, begun again after a race or a lost connection, a few times.

    `work` is safe to repeat, also where nobody knows whether its commit took effect. Raises the
    last `Unavailable`.
    """
    try:
        return await work()
    except Unavailable:
        log.debug("begun again")
    async for attempt in tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Unavailable),
        stop=tenacity.stop_after_attempt(MAX_TRIES - 1) | tenacity.stop_after_delay(TRIES_S),
        wait=tenacity.wait_random_exponential(0.1, max=0.5),
        reraise=True,
    ):
        with attempt:
            return await work()
    raise AssertionError("tenacity reraises")


async def is_reachable(engine: AsyncEngine) -> bool:
    """Whether the database answers now."""
    try:
        async with asyncio.timeout(3), reading(engine) as connection:
            await connection.execute(text("SELECT 1"))
    except (Unavailable, TimeoutError, DBAPIError):
        return False
    return True


async def require_schema(engine: AsyncEngine, revision: str, *, role: str) -> None:
    """Waits for the database, then refuses one whose schema is not the `revision` we know.

    It refuses any other role than `role` too, which may have more rights than the process needs.
    Raises `SystemExit`: a service that guesses at a schema damages data.
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
