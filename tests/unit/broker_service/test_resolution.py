"""The steps of the resolution, exhaustively: which decides, and which never may."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker_service.resolution import (
    CHAIN,
    Broker,
    Directory,
    Finding,
    FleetRollout,
    FleetRule,
    Placement,
    RegionRule,
    Source,
    Target,
    resolve,
)
from domain.choices import Choice, finished
from domain.pools import Health, Member, Pool, Situation, State, Subject
from domain.slots import settled

IDS = st.integers(1, 6)
FLEETS = ("north", "south")
SALTS = ("first", "second")


@st.composite
def directories(draw: st.DrawFn) -> Directory:
    brokers = {
        broker_id: Broker(broker_id, draw(st.booleans())) for broker_id in draw(st.sets(IDS))
    }
    some_id = st.none() | (st.sampled_from(sorted(brokers)) if brokers else st.nothing())
    active = [broker.id for broker in brokers.values() if broker.is_active]
    rollouts = st.builds(FleetRollout, some_id, st.just(50.0), st.sampled_from(SALTS))
    fleets = {
        fleet_id: FleetRule(
            draw(some_id),
            draw(st.none() | st.frozensets(st.sampled_from(sorted(brokers))))
            if brokers
            else draw(st.none() | st.just(frozenset())),
            rollout=draw(st.none() | rollouts) if brokers else None,
        )
        for fleet_id in draw(st.sets(st.sampled_from(FLEETS)))
    }
    default_id = draw(st.none() | (st.sampled_from(active) if active else st.nothing()))
    return Directory(brokers, fleets, default_id)


PLACEMENTS = st.builds(
    Placement,
    st.none() | IDS,
    st.none() | st.sampled_from(FLEETS),
    wave=st.sampled_from(["", *SALTS]),
)


def allowed(placement: Placement, directory: Directory) -> frozenset[int] | None:
    rule = directory.fleets.get(placement.fleet_id or "")
    return rule.allowed_ids if rule else None


@given(PLACEMENTS, directories())
def test_a_pin_decides_whenever_its_broker_may_serve(
    placement: Placement, directory: Directory
) -> None:
    resolution = resolve(placement, directory)
    broker = directory.brokers.get(placement.broker_id or 0)
    limits = allowed(placement, directory)
    may_serve = broker is not None and broker.is_active and (limits is None or broker.id in limits)
    assert (resolution.source is Source.DEVICE) == may_serve
    if may_serve:
        assert resolution.broker_id == placement.broker_id


@given(PLACEMENTS, directories())
def test_an_inactive_or_unknown_broker_is_never_chosen(
    placement: Placement, directory: Directory
) -> None:
    resolution = resolve(placement, directory)
    if resolution.broker_id is not None:
        assert directory.brokers[resolution.broker_id].is_active


@given(PLACEMENTS, directories())
def test_a_restricted_fleet_never_leaves_its_brokers(
    placement: Placement, directory: Directory
) -> None:
    limits = allowed(placement, directory)
    resolution = resolve(placement, directory)
    if limits is not None:
        assert resolution.source is not Source.ENVIRONMENT
        assert resolution.broker_id is None or resolution.broker_id in limits
        assert (resolution.source is None) == (resolution.broker_id is None)


@given(PLACEMENTS, directories())
def test_the_first_step_that_can_decide_decides(placement: Placement, directory: Directory) -> None:
    resolution = resolve(placement, directory)
    findings = [step.finding for step in resolution.steps]
    assert [step.source for step in resolution.steps] == [
        source for source, _ in CHAIN[: len(findings)]
    ]
    assert Finding.CHOSEN not in findings[:-1]
    if resolution.broker_id is None:
        assert len(findings) == len(CHAIN)
        assert Finding.CHOSEN not in findings
    else:
        assert resolution.steps[-1].broker_id == resolution.broker_id
        assert resolution.steps[-1].source is resolution.source


def test_without_any_broker_the_environment_decides() -> None:
    assert resolve(Placement(), Directory({}, {})).choice == Choice(Source.ENVIRONMENT)


def test_the_order_is_pin_rollout_fleet_default() -> None:
    brokers = {broker_id: Broker(broker_id) for broker_id in (1, 2, 3, 4)}
    rule = FleetRule(2, rollout=FleetRollout(4, 50, "first"))
    directory = Directory(brokers, {"north": rule}, default_id=3)
    assert resolve(Placement(1, "north", wave="first"), directory).source is Source.DEVICE
    assert resolve(Placement(None, "north", wave="first"), directory).broker_id == 4
    assert resolve(Placement(None, "north", wave="first"), directory).source is Source.ROLLOUT
    # The salt of a rollout that has ended since the placement was read.
    assert resolve(Placement(None, "north", wave="second"), directory).source is Source.FLEET
    assert resolve(Placement(None, "north"), directory).broker_id == 2
    assert resolve(Placement(None, "north"), directory).source is Source.FLEET
    assert resolve(Placement(), directory).broker_id == 3


def test_each_step_records_its_finding() -> None:
    brokers = {1: Broker(1, is_active=False), 2: Broker(2), 3: Broker(3)}
    rule = FleetRule(2, allowed_ids=frozenset({1}))
    steps = resolve(Placement(1, "north"), Directory(brokers, {"north": rule}, 3)).steps
    assert [step.finding for step in steps] == [
        Finding.INACTIVE,
        Finding.NOT_SET,
        Finding.NOT_ALLOWED,
        Finding.NOT_SET,
        Finding.NOT_SET,
        Finding.NOT_ALLOWED,
    ]
    assert resolve(Placement(9), Directory(brokers, {})).steps[0].finding is Finding.UNKNOWN


def test_a_rollout_to_a_broker_that_cannot_serve_changes_nothing() -> None:
    brokers = {1: Broker(1), 2: Broker(2, is_active=False), 3: Broker(3)}
    for target, finding in ((2, Finding.INACTIVE), (3, Finding.NOT_ALLOWED), (4, Finding.UNKNOWN)):
        rule = FleetRule(1, frozenset({1, 2}), rollout=FleetRollout(target, 100, "first"))
        resolution = resolve(Placement(None, "n", wave="first"), Directory(brokers, {"n": rule}))
        assert resolution.steps[1].finding is finding
        assert (resolution.source, resolution.broker_id) == (Source.FLEET, 1)


def test_a_directory_knows_only_what_it_holds() -> None:
    directory = Directory({1: Broker(1)}, {"north": FleetRule()})
    assert directory.knows(Placement(1, "north"))
    assert directory.knows(Placement())
    assert not directory.knows(Placement(2, "north"))
    assert not directory.knows(Placement(1, "south"))


@given(PLACEMENTS, directories(), st.frozensets(st.sampled_from(FLEETS)))
def test_an_actor_restricted_to_fleets_sees_the_same_resolutions(
    placement: Placement, directory: Directory, fleet_ids: frozenset[str]
) -> None:
    seen = directory.within(fleet_ids)
    assert seen.fleets.keys() <= fleet_ids
    usable = [rule.allowed_ids for rule in seen.fleets.values()]
    for broker_id in seen.brokers:
        assert any(ids is None or broker_id in ids for ids in usable)
    if placement.fleet_id in seen.fleets:
        found, restricted = resolve(placement, directory), resolve(placement, seen)
        assert (restricted.source, restricted.broker_id) == (found.source, found.broker_id)


FULL = Health(State.UP, is_full=True)
DOWN = Health(State.DOWN)


def pool(pool_id: int, *broker_ids: int) -> Pool:
    weights = dict.fromkeys(broker_ids, 100)
    return Pool(pool_id, tuple(map(Member, broker_ids)), slots=settled([], weights))


def world(**parts: Any) -> Directory:
    """Brokers 1 to 9, of which 9 is inactive, and the pools 1 (of 1 to 3) and 2 (of 4, 5 and 9)."""
    brokers = {broker_id: Broker(broker_id, broker_id != 9) for broker_id in range(1, 10)}
    pools = {1: pool(1, 1, 2, 3), 2: pool(2, 4, 5, 9)}
    given: dict[str, Any] = {"brokers": brokers, "fleets": {}, "pools": pools, **parts}
    return Directory(**given)


def test_every_step_but_a_rollout_can_name_a_pool() -> None:
    directory = world(
        fleets={"north": FleetRule(pool_id=2), "south": FleetRule()},
        regions={"eu": RegionRule(Target(pool_id=2)), "us": RegionRule(Target(6))},
        default_pool_id=1,
        default_id=7,
    )
    found = {
        placement: (resolution.source, resolution.choice and resolution.choice.pool)
        for placement in (
            Placement(pool_id=1),
            Placement(None, "north", pool_id=1),
            Placement(None, "north", region="eu"),
            Placement(None, "south", region="eu"),
            Placement(None, "south"),
        )
        for resolution in [resolve(placement, directory)]
    }
    assert [(source, pool.id) for source, pool in found.values() if pool] == [
        (Source.DEVICE, 1),
        (Source.DEVICE, 1),
        (Source.FLEET, 2),
        (Source.REGION, 2),
        (Source.DEFAULT_POOL, 1),
    ]
    # The pin comes before the pool, and an inactive member is left out.
    assert resolve(Placement(8, pool_id=1), directory).broker_id == 8
    choice = resolve(Placement(None, "north"), directory).choice
    assert choice is not None
    assert choice.broker_ids == {4, 5}
    assert resolve(Placement(None, "south", region="us"), directory).broker_id == 6


def test_a_region_without_a_broker_takes_the_nearest_that_is_not_down() -> None:
    regions = {
        "berlin": RegionRule(location=(52.5, 13.4)),
        "prague": RegionRule(Target(1), (50.1, 14.4)),
        "paris": RegionRule(Target(2), (48.9, 2.4)),
        "nowhere": RegionRule(),
    }
    directory = world(regions=regions, default_id=7)
    assert resolve(Placement(region="berlin"), directory).broker_id == 1
    down = world(regions=regions, default_id=7, healths={1: DOWN})
    assert resolve(Placement(region="berlin"), down).broker_id == 2
    # A region's own broker is a promise.
    assert resolve(Placement(region="prague"), down).broker_id == 1
    assert resolve(Placement(region="nowhere"), directory).broker_id == 7


def test_a_full_pool_passes_on_devices_that_are_not_at_home_in_it() -> None:
    full = dict.fromkeys((4, 5), FULL)
    directory = world(fleets={"north": FleetRule(pool_id=2)}, healths=full, default_id=7)
    choice = resolve(Placement(None, "north"), directory).choice
    assert choice is not None
    leaf, decision = finished(choice, full, Subject("one"))
    assert (leaf.source, decision and decision.broker_ids) == (Source.DEFAULT, (7,))
    leaf, decision = finished(choice, full, Subject("one", home_id=5))
    assert (leaf.source, decision and decision.home_id) == (Source.FLEET, 5)
    # At the last step, and in a restricted fleet, the pool is overfilled.
    for rule in (FleetRule(pool_id=2), FleetRule(pool_id=2, allowed_ids=frozenset({4, 5, 7}))):
        limits = {"default_id": 7} if rule.allowed_ids else {}
        directory = world(fleets={"north": rule}, healths=full, **limits)
        choice = resolve(Placement(None, "north"), directory).choice
        assert choice is not None
        leaf, decision = finished(choice, full, Subject("one"))
        assert decision is not None
        assert decision.situation is Situation.OVERFILLED
        assert leaf.source is Source.FLEET


def test_a_restricted_fleet_gets_only_its_members_of_a_pool() -> None:
    for allowed_ids, expected in (({2, 7}, {2}), ({7}, {7}), ({6}, None)):
        rule = FleetRule(pool_id=1, allowed_ids=frozenset(allowed_ids))
        directory = world(fleets={"north": rule}, default_id=7)
        choice = resolve(Placement(None, "north"), directory).choice
        assert (choice.broker_ids if choice else None) == expected


def test_a_backup_must_be_active_and_allowed() -> None:
    brokers = {
        1: Broker(1, backup_id=2),
        2: Broker(2),
        3: Broker(3, backup_id=4),
        4: Broker(4, False),
    }
    directory = Directory(brokers, {"north": FleetRule(1, frozenset({1}))}, 1)
    assert resolve(Placement(), directory).choice == Choice(Source.DEFAULT, 1, 2)
    assert resolve(Placement(3), directory).choice == Choice(Source.DEVICE, 3)
    assert resolve(Placement(None, "north"), directory).choice == Choice(Source.FLEET, 1)
