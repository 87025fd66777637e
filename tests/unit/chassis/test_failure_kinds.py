"""The meaning of each SQLSTATE for a caller: the table is total, and temporary failures are no
fault.
"""

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from chassis.database_failures import FailureKind, ends_session, failure_kind_of, translated
from chassis.errors import Unavailable

STATES = sorted(
    {
        kind.sqlstate
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, psycopg.Error) and kind.sqlstate
    }
)
# Whole classes, and single states of others.
PASSING = ("08", "28", "3D", "40", "53", "57P", "58", "72", "XX")
PASSING_STATES = {
    *("25006", "25P03", "25P04", "55P03", "57014"),
    *("0A000", "26000", "42P05"),
}


def raised(state: str) -> psycopg.Error:
    return errors.lookup(state)()


def is_passing(state: str) -> bool:
    return state.startswith(PASSING) or state in PASSING_STATES


@pytest.mark.parametrize("state", STATES)
def test_a_temporary_failure_is_not_an_internal_error(state: str) -> None:
    kind = failure_kind_of(raised(state))
    if state.startswith(("22", "23")):
        assert kind is FailureKind.DATA
    else:
        assert (kind is not FailureKind.OURS) == is_passing(state)
    assert failure_kind_of(DBAPIError("SELECT", {}, raised(state))) is kind


@pytest.mark.parametrize("state", STATES)
def test_a_caller_learns_that_the_database_cannot_be_reached(state: str) -> None:
    expected: type[Exception] = Unavailable if is_passing(state) else psycopg.Error
    with pytest.raises(expected), translated():
        raise raised(state)


@pytest.mark.parametrize("state", STATES)
def test_a_session_that_has_ended_is_not_used_again(state: str) -> None:
    """A lost race or a lack of resources leaves the connection usable."""
    has_ended = state.startswith(("08", "57P")) or state in PASSING_STATES - {"55P03", "57014"}
    assert ends_session(raised(state)) is has_ended
    assert not has_ended or failure_kind_of(raised(state)) is FailureKind.LOST


def test_an_error_without_a_state_is_a_lost_connection() -> None:
    assert failure_kind_of(psycopg.OperationalError("the connection is lost")) is FailureKind.LOST
    assert failure_kind_of(psycopg.ProgrammingError("no results to fetch")) is FailureKind.OURS
    assert not ends_session(psycopg.OperationalError())
    assert not ends_session(None)
