"""Classifies failures of PostgreSQL's statements, and repeats statements."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from typing import TypeAlias, TypeVar

import psycopg
import structlog
import tenacity
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from chassis.errors import Unavailable

DriverError = psycopg.Error
Failure: TypeAlias = DBAPIError | psycopg.Error | PoolTimeoutError | TimeoutError
Done = TypeVar("Done")

log = structlog.get_logger(__name__)

# There are more attempts than connections in a pool, all of which may have broken unnoticed.
MAX_TRIES = 6
TRIES_S = 2.0
# The reason of an `Unavailable` that is about the database itself.
DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"


class FailureKind(Enum):
    """The kind of a failure, which decides what a caller can do."""

    RACE = "race"  # deadlock, lock timeout, serialization: repeat it
    LOST = "lost"  # no connection, or it broke: repeat it, or answer UNAVAILABLE
    DATA = "data"  # the values are wrong: the same statement never succeeds
    OURS = "ours"  # anything else is a mistake in this program


# Prefixes of the SQLSTATEs that are not mistakes of this program (PostgreSQL documentation,
# appendix A); the longest match decides.
FAILURE_KINDS = {
    # Failures of the transaction: deadlocks, serialization, lock and statement timeouts, old
    # snapshots.
    **dict.fromkeys(("40", "55P03", "57014", "72"), FailureKind.RACE),
    # Failures of the server: it cannot be reached, it stops or starts, it lacks resources, its disk
    # or its files fail, it refuses the login or lacks the database, or it has ended an idle
    # session.
    **dict.fromkeys(
        ("08", "28", "3D", "53", "57P", "58", "XX", "25P03", "25P04"), FailureKind.LOST
    ),
    # The server is a standby, or has become one in a failover.
    "25006": FailureKind.LOST,
    # A prepared statement that a migration, or a pooler in between, has made invalid.
    **dict.fromkeys(("0A000", "26000", "42P05"), FailureKind.LOST),
    **dict.fromkeys(("22", "23"), FailureKind.DATA),
}
# SQLSTATEs after which no further statement succeeds in the session.
ENDED_SESSIONS = ("08", "57P", "25P03", "25P04", "25006", "0A000", "26000", "42P05")


def failure_kind_of(error: Failure) -> FailureKind:
    """The kind of a failure, by its SQLSTATE (PostgreSQL documentation, appendix A)."""
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


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns a race or a lost connection into `Unavailable`, and logs the driver's text."""
    try:
        yield
    except (DBAPIError, psycopg.Error, PoolTimeoutError, TimeoutError) as error:
        kind = failure_kind_of(error)
        if kind in (FailureKind.DATA, FailureKind.OURS):
            raise
        log.warning("the database did not answer", failure=kind.value, **described(error))
        raise Unavailable("the database cannot be reached", reason=DATABASE_UNAVAILABLE) from error


def described(error: Failure) -> dict[str, str]:
    """The part of an error that may be logged. It lacks the values, which PostgreSQL quotes."""
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
    """The result of `work`, which is repeated a few times after a race or a lost connection. It
    must be safe to repeat `work`, also if it is not known whether its commit took effect. Raises
    the last `Unavailable`.
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
