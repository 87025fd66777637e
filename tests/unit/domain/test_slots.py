"""Slots: shares follow the weights, a change moves the fewest slots, and orders are stable."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from domain.slots import SLOTS, Orders, moved, order_of, settled, shares, slot_of

MEMBERS = st.integers(1, 2**31 - 1)
WEIGHTS = st.dictionaries(MEMBERS, st.integers(0, 10_000), max_size=20)
# Few members, so that two pools have some in common.
FEW = st.dictionaries(st.integers(1, 6), st.integers(0, 10_000), max_size=6)
SLOT = st.integers(0, SLOTS - 1)
# What may be stored: slots of members that have left, and too few or too many slots.
STORED = st.lists(st.integers(0, 6), max_size=8).flatmap(
    lambda some: st.sampled_from([[], some, (some * SLOTS)[:SLOTS], (some * SLOTS)[: SLOTS + 9]])
)


@given(WEIGHTS)
def test_shares_sum_to_all_slots_and_follow_the_weights(weights: dict[int, int]) -> None:
    found = shares(weights)
    total = sum(weights.values())
    assert set(found) == {member for member, weight in weights.items() if weight > 0}
    assert sum(found.values()) == (SLOTS if total else 0)
    for member, share in found.items():
        assert abs(share - weights[member] * SLOTS / total) < 1
        # A larger weight never gets fewer slots.
        assert all(share >= found[other] for other in found if weights[member] > weights[other])


@given(WEIGHTS)
def test_the_order_of_the_members_does_not_matter(weights: dict[int, int]) -> None:
    backwards = dict(reversed(weights.items()))
    assert shares(backwards) == shares(weights)
    assert settled([], backwards) == settled([], weights)
    assert order_of(7, None, backwards) == order_of(7, None, weights)


@given(STORED, FEW)
def test_settling_moves_the_fewest_slots(slots: list[int], weights: dict[int, int]) -> None:
    became = settled(slots, weights)
    wanted = shares(weights)
    assert Counter(became) == Counter(wanted)
    if not wanted:
        return
    was = slots[:SLOTS] + [0] * (SLOTS - len(slots))
    # A member can keep what it has, but no more than its share.
    keeps = sum(min(share, was.count(member)) for member, share in wanted.items())
    assert moved(was, became).total() == SLOTS - keeps
    for old, new in moved(was, became):
        assert was.count(new) < wanted[new]
        assert was.count(old) > wanted.get(old, 0)


@given(STORED, FEW)
def test_settling_again_changes_nothing(slots: list[int], weights: dict[int, int]) -> None:
    became = settled(slots, weights)
    assert settled(became, weights) == became


@given(FEW, FEW)
def test_there_and_back_moves_as_many_slots(one: dict[int, int], other: dict[int, int]) -> None:
    if not shares(one) or not shares(other):
        return
    first = settled([], one)
    second = settled(first, other)
    assert moved(first, second).total() == moved(second, settled(second, one)).total()


@given(SLOT, WEIGHTS, MEMBERS)
def test_an_order_has_each_member_with_a_weight_once(
    slot: int, weights: dict[int, int], first: int
) -> None:
    with_weight = sorted(member for member, weight in weights.items() if weight > 0)
    for begin in (None, first, *weights):
        order = order_of(slot, begin, weights)
        assert sorted(order) == with_weight
        if begin in with_weight:
            assert order[0] == begin


@given(SLOT, WEIGHTS, MEMBERS, st.integers(0, 10_000))
def test_a_member_that_joins_or_changes_leaves_the_order_of_the_others(
    slot: int, weights: dict[int, int], member: int, weight: int
) -> None:
    before = order_of(slot, None, weights)
    after = order_of(slot, None, {**weights, member: weight})
    assert [one for one in before if one != member] == [one for one in after if one != member]


@given(SLOT, WEIGHTS, st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_larger_weight_never_moves_a_member_back(
    slot: int, weights: dict[int, int], one: int, other: int
) -> None:
    low, high = sorted((one, other))
    member = 2**31 - 1
    places = [
        order_of(slot, None, {**weights, member: weight}).index(member) for weight in (low, high)
    ]
    assert places[1] <= places[0]


@given(
    WEIGHTS,
    st.lists(SLOT, min_size=1, max_size=20),
    st.lists(MEMBERS, max_size=3),
    st.integers(1, 100),
)
def test_a_kept_order_is_the_computed_one(
    weights: dict[int, int], some: list[int], stored: list[int], priority: int
) -> None:
    slots = settled([], weights) or stored
    priorities = {member: (member + priority) % 3 for member in weights}
    plain, sorted_ones = Orders(slots, weights), Orders(slots, weights, priorities)
    for slot in [*some, *some]:
        computed = order_of(slot, slots[slot] if slot < len(slots) else None, weights)
        assert plain.of(slot) == computed
        assert sorted_ones.of(slot) == tuple(sorted(computed, key=priorities.__getitem__))


def test_the_largest_hash_has_a_score() -> None:
    # The hash of this member in this slot is 2^64 - 1.
    slot, member = 9_919, 516_019_460_013_014
    assert order_of(slot, None, {1: 10_000, member: 1}) == (member, 1)


def test_second_members_follow_the_weights() -> None:
    """If a member fails, its devices go to the others by their weights."""
    weights = {1: 100, 2: 100, 3: 200, 4: 400}
    slots = settled([], weights)
    seconds = Counter(
        order_of(slot, 1, weights)[1] for slot, member in enumerate(slots) if member == 1
    )
    for member in (2, 3, 4):
        share = weights[member] / 700
        # Four standard deviations of so many draws.
        tolerance = 4 * math.sqrt(share * (1 - share) / seconds.total())
        assert abs(seconds[member] / seconds.total() - share) < tolerance


def test_devices_spread_evenly_over_the_slots() -> None:
    count = Counter(slot_of(f"device-{n}") for n in range(200_000))
    assert all(0 <= slot < SLOTS for slot in count)
    # The chi-square statistic of this many cells is near their number.
    expected = 200_000 / SLOTS
    statistic = sum((count[slot] - expected) ** 2 / expected for slot in range(SLOTS))
    assert abs(statistic - SLOTS) < 5 * math.sqrt(2 * SLOTS)
