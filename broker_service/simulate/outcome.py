"""What a simulation finds out."""

from dataclasses import dataclass, field

from broker_service.simulate.description import Description, Event


@dataclass
class Span:
    """What happens between an event and the next one; the first span, without an event, is from
    the registrations. Times are seconds since all devices had registered.
    """

    event: Event | None
    began_s: float
    # Homes that should change: by the slots that moved, or if the pool is sticky, those of a broker
    # that left.
    ideal: float = 0.0
    # Homes that have changed, and changes of the broker to which a device is connected.
    moved: int = 0
    switched: int = 0
    # The most devices that were without a broker at the same time, and when the last of them had
    # one again; None if some have none.
    most_without: int = 0
    connected_s: float | None = None
    # When the last device changed its broker.
    settled_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The number of devices connected to each broker at one time; 0 is no broker."""

    at_s: float
    connected: dict[int, int]


@dataclass(frozen=True)
class Outcome:
    """The whole result. Brokers have the numbers of their places in the description, from 1."""

    description: Description
    spans: list[Span] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    # The homes after the registrations, and at the end.
    homes_before: dict[int, int] = field(default_factory=dict)
    homes_after: dict[int, int] = field(default_factory=dict)
    # How many devices each member should have, by its weight, after the registrations.
    expected: dict[int, float] = field(default_factory=dict)
