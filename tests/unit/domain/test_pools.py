"""Pools: who serves a device, with which fallbacks, and what health may change."""

from dataclasses import replace
from typing import Any

from hypothesis import given, reject
from hypothesis import strategies as st

from domain.pools import (
    HEALTHY,
    Decision,
    Health,
    Healths,
    Member,
    Policy,
    Pool,
    Situation,
    State,
    Subject,
    decide,
    has_room,
    is_usable,
    looks_wrong,
    order_for,
)
from domain.slots import settled
from domain.waves import is_reached, position

IDS = st.integers(1, 8)
UUIDS = st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True)
PERCENTS = st.sampled_from([0.0, 10.0, 25.0, 50.0, 99.99, 100.0])
LOCATIONS = st.tuples(st.floats(-90, 90), st.floats(-180, 180))
REGIONS = st.sampled_from(["", "eu", "us"])
HEALTH = st.builds(
    Health, st.sampled_from(State), st.booleans(), PERCENTS, st.sampled_from(["a", "b"])
)
HEALTHS = st.dictionaries(IDS, HEALTH)
DOWN, DEGRADED, FULL = Health(State.DOWN), Health(State.DEGRADED), Health(State.UP, True)


@st.composite
def pools(draw: st.DrawFn, policy: Policy | None = None, is_sticky: bool | None = None) -> Pool:
    """A pool whose slots may be out of date."""
    members = tuple(
        Member(
            broker_id,
            draw(st.sampled_from([0, 1, 100, 100, 300])),
            draw(st.integers(1, 3)),
            draw(REGIONS),
            draw(st.none() | LOCATIONS),
        )
        for broker_id in draw(st.lists(IDS, unique=True, max_size=6))
    )
    weights = {member.broker_id: member.weight for member in members}
    slots = draw(st.sampled_from([settled([], weights), [], [8], [8] * 16_384]))
    rebalance = draw(st.sampled_from([(0.0, ""), (50.0, "moving"), (100.0, "moving")]))
    return Pool(
        1,
        members,
        draw(st.sampled_from(Policy)) if policy is None else policy,
        draw(st.booleans()) if is_sticky is None else is_sticky,
        slots,
        *rebalance,
    )


SUBJECTS = st.builds(Subject, UUIDS, st.none() | IDS, REGIONS, st.none() | LOCATIONS)
STICKY = pools(is_sticky=True).map(
    lambda pool: replace(pool, rebalance_percent=0.0, rebalance_salt="")
)


def even(size: int, **changes: Any) -> Pool:
    """A pool of equal members, with ids from 1."""
    members = tuple(Member(broker_id) for broker_id in range(1, size + 1))
    pool = Pool(1, members, slots=settled([], {one.broker_id: one.weight for one in members}))
    return replace(pool, **changes)


def decided(pool: Pool, healths: Healths, subject: Subject, fallbacks: int = 2) -> Decision:
    """The decision of a pool that can serve."""
    decision = decide(pool, healths, subject, fallbacks)
    if decision is None:
        reject()
    return decision


def health_of(pool: Pool, healths: Healths, broker_id: int) -> Health:
    """What is believed about a member."""
    health = healths.get(broker_id, HEALTHY)
    if health.state is State.DOWN and looks_wrong(pool, healths):
        return Health(State.UP, health.is_full)
    return health


def usable(pool: Pool, healths: Healths, broker_id: int, uuid: str) -> bool:
    return is_usable(health_of(pool, healths, broker_id), uuid)


@given(pools(), HEALTHS, SUBJECTS, st.integers(0, 4))
def test_a_decision_is_well_formed(
    pool: Pool, healths: Healths, subject: Subject, fallbacks: int
) -> None:
    decision = decide(pool, healths, subject, fallbacks)
    members = {member.broker_id for member in pool.members}
    with_weight = {member.broker_id for member in pool.members if member.weight > 0}
    if decision is None:
        assert not with_weight
        assert subject.home_id not in members
        return
    assert sorted(decision.broker_ids) == sorted(decision.told_ids)
    assert len(set(decision.told_ids)) == len(decision.told_ids) <= fallbacks + 1
    assert set(decision.told_ids) <= with_weight | {subject.home_id}
    serving_id = decision.broker_ids[0]
    if fallbacks:
        # A device without fallbacks is told only the broker that serves.
        assert decision.told_ids[0] == decision.home_id
        assert len(decision.told_ids) == min(fallbacks + 1, len(with_weight | {decision.home_id}))
    # The serving broker is usable if any is.
    candidates = with_weight | {decision.home_id}
    if any(usable(pool, healths, one, subject.uuid) for one in candidates if one):
        assert usable(pool, healths, serving_id, subject.uuid)
    assert (decision.situation is Situation.FAILOVER) == (serving_id != decision.home_id)


@given(STICKY, HEALTHS, HEALTHS, SUBJECTS)
def test_health_changes_the_order_of_told_brokers_and_never_the_home(
    pool: Pool, healths: Healths, others: Healths, subject: Subject
) -> None:
    """Unless all told brokers are unusable: then the last one makes room."""
    home = decided(pool, others, subject).home_id
    subject = subject._replace(home_id=home)
    well = decided(pool, {}, subject)
    ill = decided(pool, healths, subject)
    assert ill.home_id == well.home_id == home
    if any(usable(pool, healths, one, subject.uuid) for one in well.told_ids):
        assert ill.told_ids == well.told_ids
        assert set(ill.broker_ids) == set(well.told_ids)
    else:
        assert ill.told_ids[:-1] == well.told_ids[:-1]


@given(pools(), HEALTHS, HEALTHS, SUBJECTS)
def test_a_failover_never_changes_the_home(
    pool: Pool, before: Healths, healths: Healths, subject: Subject
) -> None:
    """A home changes only if the device gets the broker that its slot begins with, and only while
    this one is well.
    """
    home = decided(pool, before, subject).home_id
    subject = subject._replace(home_id=home)
    after = decided(pool, healths, subject)
    if after.home_id != home:
        assert after.home_id == order_for(pool, subject)[0]
        assert after.broker_ids[0] == after.home_id
        health = health_of(pool, healths, after.home_id or 0)
        assert health.state is not State.DEGRADED
        assert not health.is_full
        is_rebalanced = pool.rebalance_salt and is_reached(
            pool.rebalance_percent, position(pool.rebalance_salt, subject.uuid)
        )
        assert is_rebalanced or not pool.is_sticky


@given(pools(), HEALTHS, SUBJECTS)
def test_new_homes_go_to_brokers_that_are_well_and_have_room(
    pool: Pool, healths: Healths, subject: Subject
) -> None:
    subject = subject._replace(home_id=None)
    decision = decided(pool, healths, subject)
    order = order_for(pool, subject)
    assert decision.home_id in order

    def reluctance(broker_id: int) -> tuple[bool, bool, bool]:
        health = health_of(pool, healths, broker_id)
        return not is_usable(health, subject.uuid), health.is_full, health.state is DEGRADED.state

    best = [one for one in order if usable(pool, healths, one, subject.uuid)]
    if best:
        assert decision.home_id == min(best, key=reluctance)
    else:
        assert decision.home_id == order[0]


@given(UUIDS, st.integers(1, 5), st.sampled_from([DEGRADED, FULL]))
def test_a_degraded_or_full_broker_gets_no_new_home_and_loses_none(
    uuid: str, broker_id: int, health: Health
) -> None:
    pool, healths = even(5), {broker_id: health}
    new = decided(pool, healths, Subject(uuid))
    assert new.home_id != broker_id
    kept = decided(pool, healths, Subject(uuid, broker_id))
    assert (kept.home_id, kept.broker_ids[0]) == (broker_id, broker_id)
    assert kept.situation is Situation.USUAL
    # In a pool that is not sticky, it loses none either, and gets none back.
    moving = replace(pool, is_sticky=False)
    assert decided(moving, healths, Subject(uuid, broker_id)).home_id in (
        broker_id,
        order_for(pool, Subject(uuid))[0],
    )
    other = broker_id % 5 + 1
    assert decided(moving, healths, Subject(uuid, other)).home_id != broker_id


@given(UUIDS)
def test_the_last_choices_are_degraded_ones_and_then_full_ones(uuid: str) -> None:
    pool = even(3)
    healths = {1: DEGRADED, 2: FULL, 3: Health(State.DEGRADED, True)}
    decision = decided(pool, healths, Subject(uuid))
    assert (decision.home_id, decision.situation) == (1, Situation.USUAL)
    assert has_room(pool, healths)
    healths[1] = Health(State.DEGRADED, True)
    decision = decided(pool, healths, Subject(uuid))
    assert (decision.home_id, decision.situation) == (2, Situation.OVERFILLED)
    assert not has_room(pool, healths)
    # The home of a device counts whether or not it is full.
    decision = decided(pool, healths, Subject(uuid, 3))
    assert (decision.home_id, decision.situation) == (3, Situation.USUAL)


def test_a_member_without_a_weight_makes_no_room() -> None:
    pool = Pool(1, (Member(1), Member(2, weight=0)))
    assert not has_room(pool, {1: FULL})
    assert has_room(pool, {2: FULL})
    assert not has_room(Pool(1, ()), {})


@given(UUIDS, st.integers(1, 8))
def test_many_members_that_look_down_are_doubted(uuid: str, size: int) -> None:
    pool = even(size)
    for down in range(size + 1):
        healths = dict.fromkeys(range(1, down + 1), DOWN)
        is_doubted = down >= 2 and down > size / 2
        assert looks_wrong(pool, healths) is is_doubted
        decision = decided(pool, healths, Subject(uuid, 1))
        if is_doubted:
            assert decision.broker_ids[0] == decision.home_id == 1
            assert decision.situation is Situation.DOUBTED
        elif down == size:  # one of one
            assert (decision.broker_ids, decision.situation) == ((1,), Situation.DOWN)
        elif down:
            assert decision.broker_ids[0] not in healths
            assert decision.situation is Situation.FAILOVER


def test_brokers_outside_the_pool_do_not_count() -> None:
    pool = even(3)
    assert not looks_wrong(pool, {8: DOWN, 9: DOWN, 10: DOWN, 1: DOWN})
    assert looks_wrong(pool, {8: DOWN, 2: DOWN, 1: DOWN})


@given(UUIDS, PERCENTS, PERCENTS, st.sampled_from(["a", "b"]))
def test_devices_that_have_come_back_stay(uuid: str, one: float, other: float, salt: str) -> None:
    narrow, wide = sorted((one, other))
    pool = even(4)

    def is_back(percent: float) -> bool:
        health = Health(State.UP, False, percent, salt)
        decision = decided(pool, {2: health}, Subject(uuid, 2))
        assert is_usable(health, uuid) == (decision.broker_ids[0] == 2)
        return decision.broker_ids[0] == 2

    assert is_back(wide) or not is_back(narrow)
    assert is_back(100)
    assert not is_back(0)


@given(UUIDS, st.booleans())
def test_a_member_without_a_weight_keeps_only_its_devices(uuid: str, is_sticky: bool) -> None:
    members = (Member(1, weight=0), Member(2), Member(3))
    pool = Pool(1, members, is_sticky=is_sticky, slots=settled([], {2: 100, 3: 100}))
    new = decided(pool, {}, Subject(uuid))
    assert 1 not in new.told_ids
    at_home = decided(pool, {}, Subject(uuid, 1))
    assert at_home.home_id == (1 if is_sticky else new.home_id)
    # A rebalancing empties it.
    moving = replace(pool, rebalance_percent=100.0, rebalance_salt="moving")
    assert decided(moving, {}, Subject(uuid, 1)).home_id == new.home_id
    # If no member has a weight, the pool serves only the devices that it has.
    empty = replace(pool, members=(Member(1, weight=0),), slots=())
    assert decide(empty, {}, Subject(uuid)) is None
    assert decided(empty, {}, Subject(uuid, 1)).broker_ids == (1,)


@given(UUIDS, PERCENTS)
def test_a_rebalancing_moves_those_that_it_has_reached(uuid: str, percent: float) -> None:
    pool = even(4, rebalance_percent=percent, rebalance_salt="moving")
    first = order_for(pool, Subject(uuid))[0]
    other = first % 4 + 1
    is_moved = is_reached(percent, position("moving", uuid))
    assert decided(pool, {}, Subject(uuid, other)).home_id == (first if is_moved else other)


@given(UUIDS)
def test_a_home_that_has_left_the_pool_counts_as_none(uuid: str) -> None:
    assert decide(even(4), {}, Subject(uuid, 9)) == decide(even(4), {}, Subject(uuid))
