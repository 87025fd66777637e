"""Simulations: what holds for every pool, and what outages and changes do to one."""

from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_service.simulate.description import (
    Description,
    DescriptionInvalid,
    What,
    parsed,
)
from broker_service.simulate.outcome import Outcome
from broker_service.simulate.picture import drawn
from broker_service.simulate.report import lines
from broker_service.simulate.simulation import simulated
from broker_service.simulate.timeline import RETURNING_PERCENTS, learned
from domain.pools import State

NAMES = ("a", "b", "c", "d")
EXAMPLES = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def described(**fields: Any) -> Description:
    return parsed(msgspec.json.encode(fields).decode(), is_json=True)


def even(count: int, *events: tuple[float, str, str], **fields: Any) -> Outcome:
    """A simulation of equal brokers, named by letters."""
    return simulated(
        described(
            members=[{"name": "abcdefghij"[place]} for place in range(count)],
            events=[{"at_s": at_s, "member": name, "what": what} for at_s, name, what in events],
            **{"devices": 4_000, "refresh_s": 60, "duration_s": 600, **fields},
        )
    )


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    """Any pool with any events that do not contradict one another."""
    members = [
        {
            "name": name,
            "weight": draw(st.sampled_from([0, 1, 100, 300])),
            "priority": draw(st.integers(1, 2)),
            "region": draw(st.sampled_from(["", "eu"])),
            "location": draw(st.sampled_from([None, [50, 8], [-30, 150]])),
            "capacity": draw(st.sampled_from([None, None, 0, 100])),
        }
        for name in NAMES
    ]
    events: list[dict[str, Any]] = []
    well = dict.fromkeys(NAMES, True)
    there = dict.fromkeys(NAMES, True)
    for at_s in range(10, 10 * draw(st.integers(1, 8)), 10):
        name = draw(st.sampled_from(NAMES))
        possible = ["down", "degraded"] if well[name] else ["up"]
        possible += ["weight", "leave"] if there[name] else ["join"]
        what = draw(st.sampled_from(possible))
        weight = {"weight": draw(st.sampled_from([0, 50]))} if what == "weight" else {}
        events.append({"at_s": at_s, "member": name, "what": what, **weight})
        if what in ("up", "down", "degraded"):
            well[name] = what == "up"
        if what in ("join", "leave"):
            there[name] = what == "join"
    return described(
        members=members,
        events=events,
        devices=draw(st.integers(1, 300)),
        refresh_s=draw(st.sampled_from([7, 30])),
        duration_s=120,
        detection_s=draw(st.sampled_from([0, 5])),
        policy=draw(st.sampled_from(["weighted", "priority", "nearest"])),
        is_sticky=draw(st.booleans()),
        uses_fallbacks=draw(st.booleans()),
        fallbacks=draw(st.integers(0, 3)),
        places=[{"region": "eu"}, {"share": 2, "location": [0, 0]}],
    )


@EXAMPLES
@given(descriptions())
def test_every_simulation_accounts_for_all_devices(description: Description) -> None:
    outcome = simulated(description)
    devices = description.devices
    for sample in outcome.samples:
        assert sum(sample.connected.values()) == devices
        assert min(sample.connected.values()) >= 0
    assert sum(outcome.homes_before.values()) == sum(outcome.homes_after.values()) == devices
    assert [sample.at_s for sample in outcome.samples] == sorted(
        sample.at_s for sample in outcome.samples
    )
    for before, after in pairwise(outcome.spans):
        assert before.began_s <= before.settled_s <= after.began_s
    for span in outcome.spans:
        assert 0 <= span.most_without <= devices
        # If no device is without a broker at the end of a span, it says since when.
        if span.connected_s is not None:
            assert span.connected_s >= span.began_s
    ET.fromstring(drawn(outcome))  # noqa: S314 - it is ours
    assert list(lines(outcome))


@EXAMPLES
@given(descriptions())
def test_a_simulation_gives_the_same_each_time(description: Description) -> None:
    assert simulated(description) == simulated(description)


@EXAMPLES
@given(descriptions(), st.floats(0, 60))
def test_no_device_comes_back_before_the_outage_is_over(
    description: Description, detection_s: float
) -> None:
    found = learned(description.events, detection_s)
    assert [one.at_s for one in found] == sorted(one.at_s for one in found)
    for name in NAMES:
        healths = [one.health for one in found if one.member == name]
        for before, after in pairwise(healths):
            if before.returning_percent < 100:
                is_next = after.returning_percent > before.returning_percent
                assert is_next or after.state is not State.UP
        events = [
            one
            for one in description.events
            if one.member == name and one.what in (What.UP, What.DOWN, What.DEGRADED)
        ]
        if events:
            assert (healths[-1].state is State.UP) == (events[-1].what is What.UP)
            assert healths[-1].returning_percent == 100


def test_devices_of_a_broker_that_goes_down_turn_to_their_fallbacks_and_come_back() -> None:
    outcome = even(4, (100, "b", "down"), (300, "b", "up"))
    _, down, up = outcome.spans
    at_b = outcome.homes_before[2]
    assert (down.switched, down.moved, down.most_without, down.connected_s) == (at_b, 0, 0, 100)
    assert (up.switched, up.moved) == (at_b, 0)
    # They come back in steps, each at its next ask.
    last_step_s = 11 + 10 * (len(RETURNING_PERCENTS) - 1)
    assert last_step_s < up.settled_s - 300 <= last_step_s + 60
    assert outcome.samples[-1].connected.get(2) == at_b
    back = [sample.connected[2] for sample in outcome.samples if sample.at_s > 300]
    assert back == sorted(back)


def test_devices_without_fallbacks_wait_until_they_ask() -> None:
    outcome = even(4, (100, "b", "down"), uses_fallbacks=False)
    down = outcome.spans[1]
    assert down.most_without == outcome.homes_before[2]
    assert down.connected_s is not None
    assert 11 <= down.connected_s - 100 <= 11 + 60


def test_two_of_two_brokers_that_look_down_are_both_used() -> None:
    """The probes are doubted, so the answers stay; the devices have no broker until one is up."""
    outcome = even(2, (100, "a", "down"), (100, "b", "down"), (200, "a", "up"))
    assert outcome.spans[2].most_without == 4_000
    assert outcome.spans[2].connected_s is None
    assert outcome.spans[3].connected_s == 200
    assert outcome.samples[-1].connected[1] == 4_000


def test_a_broker_that_joins_gets_its_share_in_one_period() -> None:
    outcome = even(5, (100, "e", "join"), is_sticky=False, devices=20_000)
    joined = outcome.spans[1]
    assert joined.moved == joined.switched == outcome.homes_after[5]
    assert joined.moved == pytest.approx(20_000 / 5, rel=0.05)
    assert joined.ideal == pytest.approx(20_000 / 5, rel=0.001)
    assert joined.settled_s - 100 <= 60


def test_a_sticky_pool_moves_only_what_must() -> None:
    outcome = even(5, (100, "e", "join"), (300, "a", "leave"))
    _, joined, left = outcome.spans
    assert (joined.moved, joined.ideal) == (0, 0)
    assert left.moved == left.ideal == outcome.homes_before[1]


def test_a_full_broker_gets_no_more_devices_than_those_of_half_a_second() -> None:
    members = [{"name": "a", "capacity": 500}, {"name": "b"}, {"name": "c"}]
    outcome = simulated(described(members=members, devices=6_000, refresh_s=60, duration_s=60))
    assert 500 <= outcome.homes_before[1] <= 500 + 50
    assert sum(outcome.homes_before.values()) == 6_000


def test_devices_get_the_nearest_broker() -> None:
    outcome = simulated(
        described(
            members=[
                {"name": "paris", "region": "eu", "location": [48.9, 2.4]},
                {"name": "sydney", "location": [-33.9, 151.2]},
            ],
            places=[
                {"share": 3, "region": "eu", "location": [52.5, 13.4]},
                {"share": 1, "location": [-37.8, 145.0]},
            ],
            policy="nearest",
            devices=400,
            duration_s=60,
        )
    )
    assert outcome.homes_before[1] == 300
    assert outcome.homes_before[2] == 100


def test_a_pool_without_weights_serves_no_device() -> None:
    outcome = simulated(described(members=[{"name": "a", "weight": 0}], devices=10))
    assert outcome.samples[-1].connected == {0: 10}
    assert "at the end, 10 devices are without a broker" in lines(outcome)
    ET.fromstring(drawn(outcome))  # noqa: S314 - it is ours


A = {"name": "a"}
INVALID: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "missing required field `members`"),
    ({"members": []}, "length >= 1"),
    ({"members": [A], "colour": 1}, "unknown field `colour`"),
    ({"members": [{"name": "a", "weight": -1}]}, "`int` >= 0 - at `$.members[0].weight`"),
    ({"members": [{"name": "a", "weight": "1"}]}, "Expected `int`, got `str`"),
    ({"members": [{"name": ""}]}, "matching regex"),
    ({"members": [{"name": "a", "location": [91, 0]}]}, "`float` <= 90"),
    ({"members": [A, A]}, "two members are named 'a'"),
    ({"members": [A], "devices": 0}, "`int` >= 1 - at `$.devices`"),
    ({"members": [A], "policy": "random"}, "Invalid enum value 'random'"),
    ({"members": [A], "refresh_s": 0}, ">= 1"),
    ({"members": [A], "places": []}, "length >= 1"),
)
EVENTS_INVALID: tuple[tuple[list[dict[str, Any]], str], ...] = (
    ([{"at_s": 1, "member": "x", "what": "down"}], "no member is named 'x'"),
    ([{"at_s": 3_601, "member": "a", "what": "down"}], "after the end of the simulation"),
    ([{"at_s": 1, "member": "a", "what": "up"}], "a is up already: event up of a at 1 s"),
    ([{"at_s": 1, "member": "a", "what": "weight"}], "only the event `weight` has a weight"),
    ([{"at_s": 1, "member": "a", "what": "up", "weight": 1}], "only the event `weight`"),
    ([{"at_s": 1, "member": "a", "what": "explode"}], "Invalid enum value 'explode'"),
    (
        [
            {"at_s": 1, "member": "a", "what": "leave"},
            {"at_s": 2, "member": "a", "what": "weight", "weight": 1},
        ],
        "a is not a member",
    ),
    ([{"at_s": second, "member": "a", "what": "join"} for second in (1, 2)], "a member already"),
    ([{"at_s": second, "member": "a", "what": "leave"} for second in (1, 2)], "not a member"),
)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        *INVALID,
        *(
            ({"members": [A, {"name": "b"}], "events": events}, why)
            for events, why in EVENTS_INVALID
        ),
    ],
)
def test_an_invalid_description_says_why(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(DescriptionInvalid) as refused:
        described(**fields)
    assert why in str(refused.value)


@given(st.text(), st.booleans())
def test_any_text_is_a_description_or_refused(text: str, is_json: bool) -> None:
    with pytest.raises(DescriptionInvalid):
        parsed(text, is_json=is_json)
