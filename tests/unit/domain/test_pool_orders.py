"""The order of a pool's members for a device: by priority, or by region and distance."""

from dataclasses import replace

import pytest
from hypothesis import given

from domain.pools import (
    Member,
    Policy,
    Pool,
    Subject,
    distance_km,
    order_for,
)
from tests.unit.domain.test_pools import DOWN, LOCATIONS, SUBJECTS, UUIDS, decided, pools


@given(pools(Policy.PRIORITY), SUBJECTS)
def test_the_lowest_priority_comes_first(pool: Pool, subject: Subject) -> None:
    order = order_for(pool, subject)
    priorities = {member.broker_id: member.priority for member in pool.members}
    assert [priorities[one] for one in order] == sorted(priorities[one] for one in order)
    # Members of one priority are in the order of the slot.
    weighted = order_for(replace(pool, policy=Policy.WEIGHTED), subject)
    assert sorted(order, key=weighted.index) == list(weighted)
    for priority in set(priorities.values()):
        same = [one for one in order if priorities[one] == priority]
        assert same == [one for one in weighted if priorities[one] == priority]


def test_a_standby_serves_only_while_the_active_broker_is_down() -> None:
    pool = Pool(1, (Member(1, priority=2), Member(2, priority=1)), Policy.PRIORITY)
    for n in range(50):
        subject = Subject(f"device-{n}")
        assert decided(pool, {}, subject).broker_ids == (2, 1)
        after = decided(pool, {2: DOWN}, subject._replace(home_id=2))
        assert (after.broker_ids, after.told_ids, after.home_id) == ((1, 2), (2, 1), 2)


@given(pools(Policy.NEAREST), SUBJECTS)
def test_the_region_comes_first_then_the_distance(pool: Pool, subject: Subject) -> None:
    order = order_for(pool, subject)
    members = {member.broker_id: member for member in pool.members}

    def key(broker_id: int) -> tuple[bool, bool, float]:
        member = members[broker_id]
        is_elsewhere = not subject.region or member.region != subject.region
        if subject.location is None or member.location is None:
            return is_elsewhere, True, 0
        return is_elsewhere, False, distance_km(subject.location, member.location)

    assert [key(one) for one in order] == sorted(map(key, order))


BERLIN, PARIS, SYDNEY = (52.52, 13.405), (48.857, 2.352), (-33.868, 151.209)


def test_distances_are_those_of_the_globe() -> None:
    assert distance_km(BERLIN, PARIS) == pytest.approx(878, abs=3)
    assert distance_km(PARIS, SYDNEY) == pytest.approx(16_960, abs=30)
    # Across the date line, and from pole to pole.
    assert distance_km((0, 179.5), (0, -179.5)) == pytest.approx(111.2, abs=0.1)
    assert distance_km((90, 0), (-90, 77)) == pytest.approx(20_015, abs=1)


@given(LOCATIONS, LOCATIONS)
def test_a_distance_is_symmetric_and_at_most_half_the_globe(
    one: tuple[float, float], other: tuple[float, float]
) -> None:
    assert distance_km(one, other) == pytest.approx(distance_km(other, one), abs=1e-3)
    assert 0 <= distance_km(one, other) <= 20_016
    assert distance_km(one, one) == 0


@given(UUIDS)
def test_a_device_fails_over_to_the_next_nearest(uuid: str) -> None:
    pool = Pool(
        1,
        (Member(1, location=SYDNEY), Member(2, location=PARIS), Member(3, location=BERLIN)),
        Policy.NEAREST,
        slots=[1] * 16_384,
    )
    subject = Subject(uuid, location=(50.0, 5.0))
    assert decided(pool, {}, subject).broker_ids == (2, 3, 1)
    assert decided(pool, {2: DOWN}, subject._replace(home_id=2)).broker_ids == (3, 2, 1)
    # Without a location, the slot decides.
    assert decided(pool, {}, Subject(uuid)).home_id == 1
