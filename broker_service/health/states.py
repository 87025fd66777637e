"""Decides the state of a broker from the results of its probes.

A single failure changes nothing. A state lasts for some time, and the states of a broker that flaps
last longer, so that its devices are not moved again and again. The devices of a broker that was
down come back in steps, so that they do not all connect at once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from domain.pools import State
from domain.reports import REASON

# The share of its devices that a broker serves in the steps after it was down, in percent.
RETURN_STEPS = (10.0, 25.0, 50.0, 100.0)
# The shortest time between two steps.
RETURN_STEP_S = 10.0
# The longest time that a broker must look better before its state improves.
LONGEST_DWELL_S = 300.0
# Faults within this time count as flapping.
FLAPPING_S = 600.0
SEVERITY = {State.UNKNOWN: 0, State.UP: 1, State.DEGRADED: 2, State.DOWN: 3}


class Result(NamedTuple):
    """What one probe found. The state is `unknown` if the broker cannot be probed."""

    state: State
    # UPPER_SNAKE, for programs; empty if the probe passed.
    reason: str = ""
    # For people.
    detail: str = ""
    # The time of a round trip; None if there was none.
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """The state of a broker now."""

    state: State = State.UNKNOWN
    reason: str = ""
    # The time since the state began, and since the last change of `returning_percent`.
    age_s: float = 0.0
    step_age_s: float = 0.0
    # How often it became degraded or down within FLAPPING_S.
    faults: int = 0
    returning_percent: float = 100.0
    salt: str = ""


class Decision(NamedTuple):
    """The next state of a broker: the columns of `broker_states`."""

    state: State
    reason: str
    returning_percent: float
    salt: str


def opinion_of(results: Sequence[Result]) -> Result | None:
    """What the results from one place say about the broker; the last one is the newest. Two
    failures in a row are needed for a fault, and the milder one of them counts. None if more
    results are needed.
    """
    if not results:
        return None
    last = results[-1]
    if SEVERITY[last.state] <= SEVERITY[State.UP]:
        return last
    if len(results) < 2:
        return None
    before = results[-2]
    if before.state is State.UNKNOWN:
        return None
    return min(last, before, key=lambda result: SEVERITY[result.state])


def consensus(opinions: Iterable[Result]) -> Result | None:
    """What all places together say. A broker is down if more than half of the places find it down,
    and degraded if at least half of them find a fault. Places that cannot probe it do not count,
    unless there are no others. None without opinions.
    """
    given = list(opinions)
    probed = [one for one in given if one.state is not State.UNKNOWN]
    if not probed:
        return given[0] if given else None
    down = [one for one in probed if one.state is State.DOWN]
    if len(down) * 2 > len(probed):
        return _typical(down)
    faults = [one for one in probed if one.state is not State.UP]
    if len(faults) * 2 >= len(probed):
        return _typical(faults)._replace(state=State.DEGRADED)
    return next(one for one in probed if one.state is State.UP)


def with_reports(found: Result | None, *, is_out_of_reach: bool) -> Result | None:
    """A broker that passes its probes is degraded if many devices cannot reach it, never down:
    invented devices must not move other devices (domain/reports.py).
    """
    if found is None or found.state is not State.UP or not is_out_of_reach:
        return found
    return found._replace(state=State.DEGRADED, reason=REASON)


def dwell_of(now: Now, wanted: State, dwell_s: float) -> float:
    """How long the present state lasts before it may become `wanted`. It may get worse after
    `dwell_s`; the time before it gets better doubles with each fault.
    """
    if now.state is State.UNKNOWN or wanted is State.UNKNOWN:
        return 0.0
    if SEVERITY[wanted] > SEVERITY[now.state]:
        return dwell_s
    doubled: float = dwell_s * 2.0 ** min(max(now.faults - 1, 0), 16)
    return max(dwell_s, min(doubled, LONGEST_DWELL_S))


def decide(now: Now, found: Result | None, dwell_s: float, salt: str) -> Decision:
    """The next state. `found` is None if nothing is known: the state stays. `salt` is new; it is
    used if the broker comes back.
    """
    stays = Decision(now.state, now.reason, now.returning_percent, now.salt)
    if found is None:
        return stays
    if found.state is State.UNKNOWN and now.state is State.UNKNOWN:
        return stays._replace(reason=found.reason)
    if found.state is now.state:
        return stays._replace(returning_percent=_returning(now))
    if now.age_s < dwell_of(now, found.state, dwell_s):
        return stays
    became = stays._replace(state=found.state, reason=found.reason)
    if found.state is State.UNKNOWN:
        return became._replace(returning_percent=100.0, salt="")
    if now.state is State.DOWN:
        return became._replace(returning_percent=RETURN_STEPS[0], salt=salt)
    return became


def _returning(now: Now) -> float:
    """The share of devices that may use the broker. It does not grow while the broker is down."""
    if now.state is State.DOWN or now.step_age_s < RETURN_STEP_S:
        return now.returning_percent
    return next((step for step in RETURN_STEPS if step > now.returning_percent), 100.0)


def _typical(results: Sequence[Result]) -> Result:
    """The first result with the most frequent reason."""
    [(reason, _)] = Counter(result.reason for result in results).most_common(1)
    return next(result for result in results if result.reason == reason)
