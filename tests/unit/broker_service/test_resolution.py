"""The steps of the resolution, exhaustively: which decides, and which never may."""

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
    Resolution,
    Source,
    resolve,
)

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
    assert resolve(Placement(), Directory({}, {})) == Resolution(
        Source.ENVIRONMENT,
        None,
        resolve(Placement(), Directory({}, {})).steps,
    )


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
