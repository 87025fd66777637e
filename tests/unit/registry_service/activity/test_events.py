"""Events in memory: bounded in all, by device and by kind, and what is dropped is counted."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from registry_service.activity.timeline.events import (
    ANSWER_CHANGED,
    CONNECT_REFUSED,
    CONNECTED,
    DROPPED,
    MAX_EVENTS,
    MAX_OF_DEVICE,
    REGISTRATION_REFUSED,
    Client,
    Event,
    Events,
    Times,
    address_of,
    address_of_peer,
    rows_of,
)

EVENTS = st.builds(
    Event,
    client=st.builds(Client, st.sampled_from("abc")),
    kind=st.sampled_from([CONNECTED, CONNECT_REFUSED, REGISTRATION_REFUSED]),
    what=st.sampled_from("xy"),
    address=st.sampled_from(["", "192.0.2.1", "192.0.2.2"]),
)


def lost() -> float:
    return REGISTRY.get_sample_value("mooring_timeline_events_dropped_total") or 0.0


def drained(events: Events, size: int = 100) -> dict[Event, Times]:
    found: dict[Event, Times] = {}
    while taken := events.take(size):
        assert len(taken) <= size
        assert not taken.keys() & found.keys()
        found |= taken
    return found


@given(
    st.lists(st.tuples(EVENTS, st.booleans())),
    st.integers(1, 8),
    st.integers(1, 4),
)
def test_each_event_is_held_or_counted_as_dropped(
    added: list[tuple[Event, bool]], limit: int, of_device: int
) -> None:
    events = Events(events=limit, of_device=of_device)
    for moment, (event, is_put_back) in enumerate(added):
        events.add(event, float(moment))
        if is_put_back:
            events.put_back(events.take(3))
        assert len(events) <= 2 * limit + 3
    found = drained(events)
    assert sum(times.count for times in found.values()) == len(added)
    of_each = Counter((event.client, event.kind == CONNECTED) for event in found)
    dropped = {event.client for event in found if event.kind == DROPPED}
    for (client, _), count in of_each.items():
        assert count <= of_device + (client in dropped)
    for event, times in found.items():
        assert times.first_at <= times.last_at
        if event.kind != DROPPED:
            moments = [moment for moment, (other, _) in enumerate(added) if other == event]
            assert times.count <= len(moments)
            assert {times.first_at, times.last_at} <= {*map(float, moments)}


def test_a_storm_for_one_device_takes_the_room_of_none() -> None:
    events, before = Events(), lost()
    for n in range(100_000):
        address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        events.add(Event(Client("one"), REGISTRATION_REFUSED, "DEVICE_TAKEN", 0, address), 0.0)
    assert len(events) == MAX_OF_DEVICE + 1
    events.add(Event(Client("one"), ANSWER_CHANGED, "generation"), 0.0)
    events.add(Event(Client("two"), REGISTRATION_REFUSED, "DEVICE_TAKEN"), 0.0)
    assert len(events) == MAX_OF_DEVICE + 3
    assert lost() - before == 100_000 - MAX_OF_DEVICE
    [times] = [times for event, times in drained(events).items() if event.kind == DROPPED]
    assert times.count == 100_000 - MAX_OF_DEVICE


def test_a_storm_of_many_devices_is_bounded_and_leaves_room_for_other_events() -> None:
    events, before = Events(), lost()
    for n in range(100_000):
        for kind in (REGISTRATION_REFUSED, CONNECT_REFUSED):
            events.add(Event(Client(f"device-{n}"), kind, "DEVICE_TAKEN"), 0.0)
    assert len(events) == MAX_EVENTS + 20_000
    assert lost() - before == 200_000 - MAX_EVENTS
    events.add(Event(Client("quiet"), CONNECTED), 0.0)
    # It does not wait until the refusals are written.
    assert Event(Client("quiet"), CONNECTED) in events.take(10)


def test_equal_events_are_one_row() -> None:
    events = Events()
    event = Event(Client("", "name"), CONNECTED, "", 7, "192.0.2.1")
    for moment in (5.0, 2.0, 9.0):
        events.add(event, moment, {"at": moment})
    [row] = rows_of(events.take(10).items())
    assert row == {
        "uuid": "",
        "username": "name",
        "kind": "connected",
        "what": "",
        "broker_id": 7,
        "address": "192.0.2.1",
        "details": {"at": 5.0},
        "count": 3,
        "first_at": 2.0,
        "last_at": 9.0,
    }


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("", ""),
        ("undefined", ""),
        ("192.0.2.1; DROP TABLE devices", ""),
        ("x" * 100, ""),
    ],
)
def test_an_address_is_one_or_is_left_out(text: str, address: str) -> None:
    assert address_of(text) == address
    assert address_of_peer(f"{text}:1883") == address
    if ":" in address:
        assert address_of_peer(f"[{text}]:1883") == address


@given(st.text())
def test_any_text_has_an_address_or_none(text: str) -> None:
    for found in (address_of(text), address_of_peer(text)):
        assert found == address_of(found)
