"""The description of a simulation: a pool, its devices, and what happens to its brokers."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from domain.pools import FALLBACKS, Policy

Seconds = Annotated[float, Meta(ge=0, le=7 * 86_400)]
Weight = Annotated[int, Meta(ge=0, le=10_000)]
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9 ._-]{0,31}\Z")]
# Latitude and longitude in degrees.
Location = tuple[
    Annotated[float, Meta(ge=-90, le=90)],
    Annotated[float, Meta(ge=-180, le=180)],
]


class DescriptionInvalid(Exception):
    """The description cannot be simulated; the text says why."""


class What(StrEnum):
    """What happens to a broker."""

    DOWN = "down"
    UP = "up"
    DEGRADED = "degraded"
    WEIGHT = "weight"
    JOIN = "join"
    LEAVE = "leave"


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Broker(_Strict, frozen=True):
    """A broker that is a member of the pool, or joins it."""

    name: Name
    weight: Weight = 100
    priority: Annotated[int, Meta(ge=1, le=100)] = 1
    region: str = ""
    location: Location | None = None
    # How many devices may get it as their home; any number if not set.
    capacity: Annotated[int, Meta(ge=0)] | None = None


class Place(_Strict, frozen=True):
    """Where a share of the devices is."""

    share: Annotated[int, Meta(ge=1, le=1_000)] = 1
    region: str = ""
    location: Location | None = None


class Event(_Strict, frozen=True):
    """What happens to a broker `at_s` seconds after all devices have registered."""

    at_s: Seconds
    member: Name
    what: What
    # The new weight, only for `weight`.
    weight: Weight | None = None


class Description(_Strict, frozen=True):
    """Everything about a simulation. Brokers that join later are listed in `members` too."""

    members: Annotated[tuple[Broker, ...], Meta(min_length=1, max_length=1_000)]
    devices: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    duration_s: Annotated[float, Meta(ge=1, le=7 * 86_400)] = 3_600
    # How often each device asks which broker it should use.
    refresh_s: Annotated[float, Meta(ge=1, le=7 * 86_400)] = 300
    # How long it takes until an outage, or its end, is known.
    detection_s: Seconds = 11
    fallbacks: Annotated[int, Meta(ge=0, le=10)] = FALLBACKS
    # Whether devices turn to a fallback by themselves, or wait until they ask.
    uses_fallbacks: bool = True
    policy: Policy = Policy.WEIGHTED
    is_sticky: bool = True
    places: Annotated[tuple[Place, ...], Meta(min_length=1, max_length=1_000)] = (Place(),)
    events: Annotated[tuple[Event, ...], Meta(max_length=1_000)] = ()

    @property
    def late_names(self) -> set[str]:
        """The brokers that are not members at the beginning: they join before they leave."""
        first: dict[str, What] = {}
        for event in self.events:
            if event.what in (What.JOIN, What.LEAVE):
                first.setdefault(event.member, event.what)
        return {name for name, what in first.items() if what is What.JOIN}


def parsed(text: str, *, is_json: bool) -> Description:
    """The description in a TOML or JSON text, with its events in order. Raises
    `DescriptionInvalid`.
    """
    decode = msgspec.json.decode if is_json else msgspec.toml.decode
    try:
        raw: Any = decode(text)
        description = msgspec.convert(raw, Description)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DescriptionInvalid(str(error)) from None
    events = tuple(sorted(description.events, key=lambda event: event.at_s))
    description = msgspec.structs.replace(description, events=events)
    _check(description)
    return description


def _check(description: Description) -> None:
    names = [member.name for member in description.members]
    for one, other in pairwise(sorted(names)):
        if one == other:
            raise DescriptionInvalid(f"two members are named {one!r}")
    for event in description.events:
        if event.member not in names:
            raise DescriptionInvalid(f"no member is named {event.member!r}: {_shown(event)}")
        if event.at_s > description.duration_s:
            raise DescriptionInvalid(f"after the end of the simulation: {_shown(event)}")
        if (event.weight is None) == (event.what is What.WEIGHT):
            raise DescriptionInvalid(f"only the event `weight` has a weight: {_shown(event)}")
    for name in names:
        events = [event for event in description.events if event.member == name]
        _check_order(events, is_member=name not in description.late_names)


def _check_order(events: Sequence[Event], *, is_member: bool) -> None:
    """Raises `DescriptionInvalid` if the events of a broker contradict one another."""
    is_well = True
    for event in events:
        if event.what in (What.JOIN, What.LEAVE):
            if is_member == (event.what is What.JOIN):
                state = "a member already" if is_member else "not a member"
                raise DescriptionInvalid(f"{event.member} is {state}: {_shown(event)}")
            is_member = not is_member
        elif event.what is What.WEIGHT and not is_member:
            raise DescriptionInvalid(f"{event.member} is not a member: {_shown(event)}")
        elif event.what is What.UP and is_well:
            raise DescriptionInvalid(f"{event.member} is up already: {_shown(event)}")
        if event.what in (What.UP, What.DOWN, What.DEGRADED):
            is_well = event.what is What.UP


def _shown(event: Event) -> str:
    return f"event {event.what} of {event.member} at {event.at_s:g} s"
