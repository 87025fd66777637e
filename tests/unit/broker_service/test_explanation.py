"""The explanation and the resolution never disagree, in all small worlds."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_service.explanation import Facts, Reason, explain, reached, supposing
from broker_service.resolution import (
    CHAIN,
    Broker,
    Directory,
    FleetRollout,
    FleetRule,
    Placement,
    Source,
    resolve,
)
from tests.unit.broker_service.test_resolution import IDS, PLACEMENTS, directories

FACTS = st.builds(Facts, PLACEMENTS, st.sampled_from(["", "eu"]), uuid=st.sampled_from(["", "one"]))


def worlds() -> list[tuple[Placement, Directory]]:
    """Every placement in every directory of two brokers and a fleet, which may have a rollout."""
    ids: tuple[int | None, ...] = (None, 1, 2)
    limits = (None, frozenset[int](), frozenset({1}), frozenset({2}), frozenset({1, 2}))
    waves = (
        ("", None),
        ("", FleetRollout(2, 50, "first")),
        ("first", FleetRollout(2, 50, "first")),
    )
    return [
        (
            Placement(pin, fleet_id, wave=wave),
            Directory(
                {1: Broker(1, is_active=one), 2: Broker(2, is_active=two)},
                {"north": FleetRule(rule, limit, rollout=rollout)},
                default_id,
            ),
        )
        for pin, fleet_id, rule, limit, default_id, one, two, (wave, rollout) in product(
            ids, (None, "north"), ids, limits, ids, (True, False), (True, False), waves
        )
    ]


def check(facts: Facts, directory: Directory) -> None:
    explained, steps = explain(facts, directory), explain(facts, directory).steps
    resolution = resolve(facts.placement, directory)
    assert explained.source == resolution.source
    assert explained.broker_id == resolution.broker_id
    assert [step.source for step in steps] == list(Source)
    decided = [step for step in steps if step.reason is Reason.DECIDED]
    assert [step.source for step in decided] == ([resolution.source] if resolution.source else [])
    assert all(step.broker_id == resolution.broker_id for step in decided)
    # Exactly the steps after the deciding one are marked as decided earlier.
    reasons = [step.reason is Reason.DECIDED_EARLIER for step in steps]
    asked = steps.index(decided[0]) + 1 if decided else len(steps)
    assert reasons == [False] * asked + [True] * (len(steps) - asked)
    assert all(step.explanation for step in steps)


def test_they_agree_in_every_small_world() -> None:
    for placement, directory in worlds():
        check(Facts(placement), directory)


@given(FACTS, directories())
def test_they_agree_in_larger_worlds(facts: Facts, directory: Directory) -> None:
    check(facts, directory)


def test_the_steps_are_those_of_the_resolution_in_order() -> None:
    chain = [source for source, _ in CHAIN]
    assert [source for source in Source if source in chain] == chain


@given(FACTS, directories(), st.sets(IDS), st.sets(IDS), st.none() | IDS)
def test_supposed_facts_are_resolved_like_real_ones(
    facts: Facts,
    directory: Directory,
    active_ids: set[int],
    inactive_ids: set[int],
    default_id: int | None,
) -> None:
    supposed = supposing(
        directory,
        active_ids=active_ids - inactive_ids,
        inactive_ids=inactive_ids,
        default_id=default_id,
    )
    check(facts, supposed)
    resolution = resolve(facts.placement, supposed)
    assert resolution.broker_id not in inactive_ids


@given(directories())
def test_supposing_nothing_changes_nothing(directory: Directory) -> None:
    assert supposing(directory, default_id=directory.default_id) == directory


BROKERS = {1: Broker(1), 2: Broker(2, is_active=False), 3: Broker(3)}
RULES = {
    "free": FleetRule(),
    "placed": FleetRule(3),
    "closed": FleetRule(None, frozenset()),
    "tight": FleetRule(1, frozenset({2})),
    "moving": FleetRule(1, rollout=FleetRollout(3, 10, "first")),
    "stuck": FleetRule(1, rollout=FleetRollout(2, 100, "first")),
}
# The positions of devices in the waves of that salt: near the beginning, and near the end.
EARLY, LATE = "device-12", "device-1"


@pytest.mark.parametrize(
    ("facts", "default_id", "reasons"),
    [
        (Facts(Placement(1)), None, ["DECIDED", *["DECIDED_EARLIER"] * 6]),
        (
            Facts(Placement(2, "placed")),
            1,
            ["BROKER_INACTIVE", "NO_ROLLOUT", "DECIDED", *["DECIDED_EARLIER"] * 4],
        ),
        (
            Facts(Placement(9), "eu"),
            1,
            [
                "BROKER_UNKNOWN",
                *["NO_FLEET"] * 2,
                "REGION_HAS_NO_BROKER",
                "NO_DEFAULT_POOL",
                "DECIDED",
                "DECIDED_EARLIER",
            ],
        ),
        (
            Facts(Placement(None, "free")),
            None,
            [
                "NO_PIN",
                "NO_ROLLOUT",
                "FLEET_HAS_NO_BROKER",
                "NO_REGION",
                "NO_DEFAULT_POOL",
                "NO_DEFAULT",
                "DECIDED",
            ],
        ),
        (
            Facts(Placement(3, "tight")),
            1,
            [
                "BROKER_NOT_ALLOWED",
                "NO_ROLLOUT",
                "BROKER_NOT_ALLOWED",
                "NO_REGION",
                "NO_DEFAULT_POOL",
                "BROKER_NOT_ALLOWED",
                "FLEET_IS_RESTRICTED",
            ],
        ),
        (
            Facts(Placement(None, "moving"), uuid=EARLY),
            1,
            ["NO_PIN", "DECIDED", *["DECIDED_EARLIER"] * 5],
        ),
        (
            Facts(Placement(None, "moving"), uuid=LATE),
            1,
            ["NO_PIN", "NOT_REACHED", "DECIDED", *["DECIDED_EARLIER"] * 4],
        ),
        (
            Facts(Placement(None, "stuck")),
            1,
            ["NO_PIN", "BROKER_INACTIVE", "DECIDED", *["DECIDED_EARLIER"] * 4],
        ),
    ],
)
def test_each_reason(facts: Facts, default_id: int | None, reasons: list[str]) -> None:
    directory = Directory(BROKERS, RULES, default_id)
    steps = explain(reached(facts, directory), directory).steps
    assert [step.reason for step in steps] == reasons


def test_a_sentence_names_its_objects() -> None:
    directory = Directory(BROKERS, RULES, 1)
    steps = explain(Facts(Placement(3, "tight")), directory).steps
    assert steps[0].explanation == (
        "broker 3 is the device's pin, and is not among the brokers that the fleet is restricted"
        " to: 2"
    )
    assert "tight" in steps[-1].explanation
    steps = explain(Facts(Placement(3, "closed")), directory).steps
    assert steps[0].explanation.endswith(": none at all")
    many = Directory(BROKERS, {"many": FleetRule(None, frozenset(range(10, 90)))}, 1)
    steps = explain(Facts(Placement(3, "many")), many).steps
    assert steps[0].explanation.endswith("18, 19 and others")
    steps = explain(Facts(Placement(None, "moving"), uuid=LATE), directory).steps
    assert steps[1].explanation == (
        "the rollout of the fleet moving to broker 3 is at 10 %, and reaches this device at 81.32 %"
    )


def test_a_supposed_fleet_includes_its_rollout() -> None:
    directory = Directory(BROKERS, RULES, 1)
    elsewhere = Facts(Placement(None, "free", wave="another"), uuid=EARLY)
    assert reached(elsewhere, directory).placement.wave == ""
    moved = Facts(Placement(None, "moving", wave="another"), uuid=EARLY)
    assert reached(moved, directory).placement.wave == "first"
    # Without a uuid, a device is known to be in the wave only when all are reached.
    assert reached(Facts(Placement(None, "moving")), directory).placement.wave == ""
    assert reached(Facts(Placement(None, "stuck")), directory).placement.wave == "first"
