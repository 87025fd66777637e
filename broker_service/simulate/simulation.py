"""Devices ask one after another, and turn to another broker when theirs is gone."""

import math
from array import array
from collections import Counter
from collections.abc import Sequence

from broker_service.simulate.description import Broker, Description, Event, What
from broker_service.simulate.outcome import Outcome, Sample, Span
from broker_service.simulate.timeline import Learned, learned
from domain.pools import HEALTHY, Health, Member, Pool, State, Subject, decide
from domain.slots import SLOTS, moved, settled

SAMPLES = 240
# How often it is computed which brokers are full.
FULL_EVERY_S = 0.5
NONE = 0


def simulated(description: Description) -> Outcome:
    """Runs the simulation from the registrations to the end."""
    run = _Run(description)
    run.register()
    for at_s, thing in _agenda(description):
        run.ask_until(at_s)
        if isinstance(thing, Event):
            run.happen(thing)
        elif isinstance(thing, Learned):
            run.learn(thing)
        else:
            run.sample(at_s)
    return run.finished()


def _agenda(description: Description) -> list[tuple[float, Event | Learned | None]]:
    """Everything that happens, in order; None is a sample for the picture."""
    end_s = description.duration_s
    things: list[tuple[float, Event | Learned | None]] = [
        (event.at_s, event) for event in description.events
    ]
    things += [
        (one.at_s, one)
        for one in learned(description.events, description.detection_s)
        if one.at_s <= end_s
    ]
    things += [(end_s * sample / SAMPLES, None) for sample in range(SAMPLES + 1)]
    # A sample comes after what happens at the same time.
    return sorted(things, key=lambda thing: (thing[0], thing[1] is None))


class _Run:
    """The state of the brokers and of all devices. Device n asks at n / devices of each period, and
    registers one period before the beginning.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self.brokers = dict(enumerate(description.members, 1))
        self.ids = {one.name: place for place, one in self.brokers.items()}
        late = description.late_names
        first = tuple(
            _member(place, one) for place, one in self.brokers.items() if one.name not in late
        )
        self.pool = _pool(description, first, ())
        self.healths: dict[int, Health] = {}
        self.gone: set[int] = set()
        # It changes with each change of the pool or of a health: a device that has asked since then
        # gets the same answer.
        self.epoch = 1
        count = description.devices
        self.asked = 0
        self.answered = array("i", bytes(4 * count))
        self.homes = array("i", bytes(4 * count))
        self.connected = array("i", bytes(4 * count))
        self.told: list[tuple[int, ...]] = [()] * count
        # Equal answers are one object.
        self.answers: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.by_home: Counter[int] = Counter({NONE: count})
        self.by_connected: Counter[int] = Counter({NONE: count})
        self.places = [place for place in description.places for _ in range(place.share)]
        self.span = Span(None, -description.refresh_s)
        self.outcome = Outcome(description, [self.span])

    def register(self) -> None:
        """All devices register within one period."""
        weights = self.pool.weights
        for broker_id, weight in weights.items():
            share = weight / max(1, sum(weights.values()))
            self.outcome.expected[broker_id] = share * self.description.devices
        self.ask_until(0)
        self.outcome.homes_before.update(self.by_home)

    def finished(self) -> Outcome:
        self.outcome.homes_after.update(self.by_home)
        return self.outcome

    def sample(self, at_s: float) -> None:
        self.outcome.samples.append(Sample(at_s, dict(self.by_connected)))

    def ask_until(self, at_s: float) -> None:
        """The devices ask whose time comes before `at_s`."""
        capacities = any(one.capacity is not None for one in self.brokers.values())
        devices, period_s = self.description.devices, self.description.refresh_s
        until = math.ceil((at_s + period_s) * devices / period_s)
        if not capacities:
            self._ask(until)
            return
        each = max(1, int(FULL_EVERY_S * devices / period_s))
        while self.asked < until:
            self._ask(min(until, self.asked - self.asked % each + each))
            self._mark_full()

    def _ask(self, until: int) -> None:
        devices, period_s = self.description.devices, self.description.refresh_s
        for number in range(self.asked, until):
            device = number % devices
            if self.answered[device] != self.epoch:
                self.answered[device] = self.epoch
                self._answer(device, number * period_s / devices - period_s)
        self.asked = max(self.asked, until)

    def _answer(self, device: int, now_s: float) -> None:
        place = self.places[device % len(self.places)]
        home_id = self.homes[device] or None
        subject = Subject(f"device-{device}", home_id, place.region, place.location)
        decision = decide(self.pool, self.healths, subject, self.description.fallbacks)
        answer = decision.broker_ids if decision else ()
        became = (decision.home_id if decision else None) or NONE
        if became != self.homes[device]:
            self.by_home[self.homes[device]] -= 1
            self.by_home[became] += 1
            self.homes[device] = became
            self.span.moved += 1
        if answer != self.told[device]:
            self.told[device] = self.answers.setdefault(answer, answer)
            self._connect(device, now_s)

    def _connect(self, device: int, now_s: float) -> None:
        """The device turns to the first of its brokers that answers."""
        told = self.told[device] if self.description.uses_fallbacks else self.told[device][:1]
        became = next((one for one in told if one not in self.gone), NONE)
        was = self.connected[device]
        if became == was:
            return
        self.connected[device] = became
        self.by_connected[was] -= 1
        self.by_connected[became] += 1
        span = self.span
        span.switched += 1
        span.settled_s = now_s
        without = self.by_connected[NONE]
        if was == NONE and without == 0:
            span.connected_s = now_s
        if became == NONE:
            span.connected_s = None
            span.most_without = max(span.most_without, without)

    def happen(self, event: Event) -> None:
        """The event happens; a span begins with it."""
        broker_id = self.ids[event.member]
        without = self.by_connected[NONE]
        self.span = Span(
            event,
            event.at_s,
            most_without=without,
            connected_s=None if without else event.at_s,
            settled_s=event.at_s,
        )
        self.outcome.spans.append(self.span)
        if event.what is What.DOWN:
            self.gone.add(broker_id)
            self._reconnect(broker_id, event.at_s)
        elif event.what is What.UP:
            self.gone.discard(broker_id)
            self._reconnect(NONE, event.at_s)
        elif event.what is not What.DEGRADED:
            self._change(event, broker_id)

    def _reconnect(self, broker_id: int, now_s: float) -> None:
        """The devices that are connected to it, or to none, look for another broker."""
        for device, connected in enumerate(self.connected):
            if connected == broker_id:
                self._connect(device, now_s)

    def _change(self, event: Event, broker_id: int) -> None:
        """Changes the members of the pool or their weights, with the fewest slots."""
        members = {one.broker_id: one for one in self.pool.members}
        if event.what is What.JOIN:
            members[broker_id] = _member(broker_id, self.brokers[broker_id])
        elif event.what is What.LEAVE:
            del members[broker_id]
        elif event.weight is not None:
            members[broker_id] = members[broker_id]._replace(weight=event.weight)
        before = self.pool.slots
        self.pool = _pool(self.description, tuple(members.values()), before)
        if not self.pool.is_sticky:
            slots = moved(before, self.pool.slots).total()
            self.span.ideal = slots * self.description.devices / SLOTS
        elif event.what is What.LEAVE:
            self.span.ideal = self.by_home[broker_id]
        self.epoch += 1

    def learn(self, what: Learned) -> None:
        """From now on, answers go by this health."""
        broker_id = self.ids[what.member]
        is_full = self.healths.get(broker_id, what.health).is_full
        self._believe(broker_id, what.health._replace(is_full=is_full))

    def _mark_full(self) -> None:
        for broker_id, broker in self.brokers.items():
            if broker.capacity is not None:
                health = self.healths.get(broker_id, HEALTHY)
                is_full = self.by_home[broker_id] >= broker.capacity
                if health.is_full != is_full:
                    self._believe(broker_id, health._replace(is_full=is_full))

    def _believe(self, broker_id: int, health: Health) -> None:
        if health._replace(salt="") in (HEALTHY, Health(State.UP)):
            self.healths.pop(broker_id, None)
        else:
            self.healths[broker_id] = health
        self.epoch += 1


def _member(broker_id: int, one: Broker) -> Member:
    return Member(broker_id, one.weight, one.priority, one.region, one.location)


def _pool(description: Description, members: tuple[Member, ...], slots: Sequence[int]) -> Pool:
    """The pool whose slots are settled for these members."""
    became = settled(slots, {one.broker_id: one.weight for one in members})
    return Pool(1, members, description.policy, description.is_sticky, became)
