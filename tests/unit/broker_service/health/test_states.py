"""The states of a broker follow from the results of its probes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from broker_service.health.states import (
    LONGEST_DWELL_S,
    RETURN_STEP_S,
    RETURN_STEPS,
    SEVERITY,
    Decision,
    Now,
    Result,
    consensus,
    decide,
    opinion_of,
    with_reports,
)
from domain.pools import State

DWELL_S = 10.0
UP = Result(State.UP)
UNKNOWN = Result(State.UNKNOWN, "NOT_PROBED")
DOWN = Result(State.DOWN, "PORT_CLOSED")
DEGRADED = Result(State.DEGRADED, "LOGIN_REFUSED")
RESULTS = st.sampled_from([UP, UNKNOWN, DOWN, DEGRADED])
STATES = st.sampled_from(list(State))


@dataclass(frozen=True)
class Moment:
    """A decision, and the time at which it was made."""

    at: float
    before: Now
    decision: Decision


def simulated(results: Sequence[Result], pause_s: float) -> list[Moment]:
    """The decisions after each result, with one result every `pause_s`."""
    now, moments, faults = Now(age_s=0.0, step_age_s=0.0), list[Moment](), 0
    for number in range(len(results)):
        found = opinion_of(results[max(0, number - 1) : number + 1])
        decision = decide(now, found, DWELL_S, f"salt {number}")
        moments.append(Moment(number * pause_s, now, decision))
        has_changed = decision.state is not now.state
        if has_changed and SEVERITY[decision.state] > SEVERITY[State.UP]:
            faults += 1
        has_stepped = has_changed or decision.returning_percent != now.returning_percent
        now = Now(
            state=decision.state,
            reason=decision.reason,
            age_s=pause_s if has_changed else now.age_s + pause_s,
            step_age_s=pause_s if has_stepped else now.step_age_s + pause_s,
            faults=faults,
            returning_percent=decision.returning_percent,
            salt=decision.salt,
        )
    return moments


@given(st.lists(RESULTS, max_size=80), st.floats(0.5, 20))
def test_a_broker_is_down_only_after_two_failures_in_a_row(
    results: list[Result], pause_s: float
) -> None:
    for number, moment in enumerate(simulated(results, pause_s)):
        if moment.decision.state is State.DOWN and moment.before.state is not State.DOWN:
            assert results[number - 1 : number + 1] == [DOWN, DOWN]


@given(st.lists(RESULTS, max_size=80), st.floats(0.5, 20))
def test_a_state_lasts_unless_the_broker_cannot_be_probed(
    results: list[Result], pause_s: float
) -> None:
    for moment in simulated(results, pause_s):
        became, was = moment.decision.state, moment.before.state
        if became is not was and State.UNKNOWN not in (became, was):
            assert moment.before.age_s >= DWELL_S


@given(st.lists(RESULTS, max_size=80), st.floats(0.5, 20))
def test_devices_come_back_in_steps_that_are_apart(results: list[Result], pause_s: float) -> None:
    for moment in simulated(results, pause_s):
        before, after = moment.before, moment.decision
        if before.state is State.DOWN and after.state in (State.UP, State.DEGRADED):
            assert after.returning_percent == RETURN_STEPS[0]
            assert after.salt not in (before.salt, "")
        elif after.state is State.UNKNOWN:
            assert after.returning_percent == 100
        elif after.returning_percent != before.returning_percent:
            assert before.step_age_s >= RETURN_STEP_S
            assert after.state is before.state
            steps = list(RETURN_STEPS)
            assert steps.index(after.returning_percent) == 1 + steps.index(before.returning_percent)
            assert after.salt == before.salt


@given(st.lists(RESULTS, min_size=2, max_size=40))
def test_a_broker_that_stays_well_has_all_its_devices_again(results: list[Result]) -> None:
    last = simulated([*results, *[UP] * 80], 10.0)[-1].decision
    assert (last.state, last.returning_percent) == (State.UP, 100.0)


@given(st.lists(RESULTS, min_size=2, max_size=40))
def test_a_broker_that_stays_down_is_down(results: list[Result]) -> None:
    # The state may just have improved, and lasts for the dwell.
    assert simulated([*results, DOWN, DOWN, DOWN], DWELL_S)[-1].decision.state is State.DOWN


@given(STATES, st.floats(0, 1e6), st.integers(0, 50), RESULTS)
def test_the_same_finding_changes_nothing_twice(
    state: State, age_s: float, faults: int, found: Result
) -> None:
    now = Now(state, "", age_s, 0.0, faults)
    first = decide(now, found, DWELL_S, "salt")
    again = replace(
        now,
        state=first.state,
        reason=first.reason,
        returning_percent=first.returning_percent,
        salt=first.salt,
    )
    assert decide(again, found, DWELL_S, "other") == first


def test_flapping_delays_improvements_and_not_faults() -> None:
    for faults, waits in ((1, 10.0), (2, 20.0), (3, 40.0), (40, LONGEST_DWELL_S)):
        down = Now(State.DOWN, "PORT_CLOSED", waits - 1, 0.0, faults)
        assert decide(down, UP, DWELL_S, "s").state is State.DOWN
        assert decide(replace(down, age_s=waits), UP, DWELL_S, "s").state is State.UP
        up = Now(State.UP, "", DWELL_S, 0.0, faults)
        assert decide(up, DOWN, DWELL_S, "s").state is State.DOWN


def test_without_an_opinion_the_state_stays() -> None:
    assert opinion_of([]) is None
    assert opinion_of([DOWN]) is None
    assert opinion_of([UNKNOWN, DOWN]) is None
    assert opinion_of([UP, DOWN]) == UP
    assert opinion_of([DEGRADED, DOWN]) == DEGRADED
    assert opinion_of([DOWN, UP]) == UP
    now = Now(State.DOWN, "PORT_CLOSED", 1e6, 1e6)
    assert decide(now, None, DWELL_S, "s") == Decision(State.DOWN, "PORT_CLOSED", 100.0, "")


def test_a_broker_is_down_if_most_places_find_it_down() -> None:
    assert consensus([]) is None
    assert consensus([UNKNOWN]) == UNKNOWN
    assert consensus([UNKNOWN, DOWN]) == DOWN
    assert consensus([UP, DOWN]) == DOWN._replace(state=State.DEGRADED)
    assert consensus([UP, UP, DOWN]) == UP
    assert consensus([UP, DOWN, DOWN]) == DOWN
    assert consensus([UP, DEGRADED, DEGRADED]) == DEGRADED


@given(st.sampled_from([None, UNKNOWN, UP, DOWN]), st.booleans())
def test_reports_of_devices_only_ever_degrade(found: Result | None, is_out_of_reach: bool) -> None:
    became = with_reports(found, is_out_of_reach=is_out_of_reach)
    if found == UP and is_out_of_reach:
        assert became is not None
        assert became.state is State.DEGRADED
        assert became.reason
    else:
        assert became == found
