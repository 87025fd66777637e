"""When the broker service learns what happened to a broker, and what it answers from then on."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker_service.simulate.description import Event, What
from domain.pools import Health, State

# After an outage, the devices come back in these steps.
RETURNING_PERCENTS = (10.0, 25.0, 50.0, 100.0)
RETURNING_STEP_S = 10.0


@dataclass(frozen=True, slots=True)
class Learned:
    """From `at_s` on, the broker has this health in the answers."""

    at_s: float
    member: str
    health: Health


def learned(events: Sequence[Event], detection_s: float) -> list[Learned]:
    """What is learned from the events, which are in order."""
    found: list[Learned] = []
    states: dict[str, State] = {}
    for place, event in enumerate(events):
        at_s = event.at_s + detection_s
        if event.what in (What.DOWN, What.DEGRADED):
            states[event.member] = State(event.what)
            found.append(Learned(at_s, event.member, Health(states[event.member])))
        elif event.what is What.UP and states.pop(event.member) is State.DOWN:
            until_s = _next_outage_s(events[place + 1 :], event.member) + detection_s
            found += _returning(event, at_s, until_s)
        elif event.what is What.UP:
            found.append(Learned(at_s, event.member, Health(State.UP)))
    return sorted(found, key=lambda one: one.at_s)


def _next_outage_s(events: Sequence[Event], member: str) -> float:
    outages = (What.DOWN, What.DEGRADED)
    times = (one.at_s for one in events if one.member == member and one.what in outages)
    return next(times, float("inf"))


def _returning(event: Event, at_s: float, until_s: float) -> list[Learned]:
    """The steps in which its devices come back, unless the next outage is known before."""
    salt = f"{event.member}-{event.at_s:g}"
    steps = [
        Learned(
            at_s + step * RETURNING_STEP_S,
            event.member,
            Health(State.UP, returning_percent=percent, salt=salt),
        )
        for step, percent in enumerate(RETURNING_PERCENTS)
    ]
    return [step for step in steps if step.at_s < until_s]
