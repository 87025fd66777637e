"""How a million devices spread over ten equal members, and how many move with a change."""

from collections import Counter
from functools import cache

import pytest

from domain.pools import Health, Member, Pool, State, Subject, decide
from domain.slots import SLOTS, settled, slot_of

DEVICES = 1_000_000
MEMBERS = tuple(range(1, 11))
DOWN = Health(State.DOWN)


@cache
def crowd() -> tuple[dict[int, str], Counter[int]]:
    """A device of each slot, and the number of devices in it: the devices of a slot have the same
    order of members.
    """
    uuids: dict[int, str] = {}
    devices: Counter[int] = Counter()
    for n in range(DEVICES):
        uuid = f"device-{n}"
        slot = slot_of(uuid)
        devices[slot] += 1
        uuids.setdefault(slot, uuid)
    assert len(uuids) == SLOTS
    return uuids, devices


def pool_of(members: tuple[int, ...], slots: list[int]) -> Pool:
    """A pool of equal members that is not sticky."""
    settled_slots = settled(slots, dict.fromkeys(members, 100))
    return Pool(1, tuple(map(Member, members)), is_sticky=False, slots=settled_slots)


def homes(pool: Pool, before: dict[int, int] | None = None) -> dict[int, int]:
    """The home of the devices of each slot."""
    found = {}
    for slot, uuid in crowd()[0].items():
        decision = decide(pool, {}, Subject(uuid, before[slot] if before else None))
        assert decision is not None
        assert decision.home_id is not None
        found[slot] = decision.home_id
    return found


def devices_by_home(found: dict[int, int]) -> Counter[int]:
    count: Counter[int] = Counter()
    for slot, home_id in found.items():
        count[home_id] += crowd()[1][slot]
    return count


def devices_moved(before: dict[int, int], after: dict[int, int]) -> int:
    return sum(crowd()[1][slot] for slot in before if before[slot] != after[slot])


def test_a_million_devices_spread_evenly() -> None:
    count = devices_by_home(homes(pool_of(MEMBERS, [])))
    assert count.total() == DEVICES
    for member in MEMBERS:
        assert count[member] == pytest.approx(DEVICES / 10, rel=0.02)


def test_a_member_that_joins_gets_its_share_and_no_other_device_moves() -> None:
    first = pool_of(MEMBERS, [])
    before = homes(first)
    after = homes(pool_of((*MEMBERS, 11), list(first.slots)), before)
    assert {after[slot] for slot in before if before[slot] != after[slot]} == {11}
    assert devices_moved(before, after) == pytest.approx(DEVICES / 11, rel=0.01)
    for count in devices_by_home(after).values():
        assert count == pytest.approx(DEVICES / 11, rel=0.02)


def test_the_devices_of_a_member_that_leaves_move_and_no_others() -> None:
    first = pool_of(MEMBERS, [])
    before = homes(first)
    rest = tuple(member for member in MEMBERS if member != 4)
    after = homes(pool_of(rest, list(first.slots)), before)
    assert {before[slot] for slot in before if before[slot] != after[slot]} == {4}
    assert devices_moved(before, after) == pytest.approx(DEVICES / 10, rel=0.01)
    for count in devices_by_home(after).values():
        assert count == pytest.approx(DEVICES / 9, rel=0.02)


def test_the_devices_of_a_member_that_is_down_spread_over_all_others() -> None:
    from_4 = [
        decide(pool, {4: DOWN}, Subject(uuid, 4))
        for pool in [pool_of(MEMBERS, [])]
        for slot, uuid in crowd()[0].items()
        if pool.slots[slot] == 4
    ]
    serving = Counter(decision.broker_ids[0] for decision in from_4 if decision)
    assert set(serving) == {*MEMBERS} - {4}
    # Five standard deviations of so many draws.
    expected = len(from_4) / 9
    assert all(abs(count - expected) < 5 * expected**0.5 for count in serving.values())
