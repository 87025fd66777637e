"""The chain of seals, without a database: every change is found."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_service.audit.sealing import chain
from registry_service.audit.sealing.chain import (
    GENESIS,
    Comparison,
    Fault,
    Seal,
    fault_of,
    next_seal,
)

KEY = bytes(range(32))
VALUES = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LINES = st.dictionaries(
    st.integers(1, 60), st.lists(VALUES, min_size=3, max_size=3).map(tuple), min_size=1
).map(lambda lines: dict(sorted(lines.items())))


def seal_of(lines: dict[int, chain.Line], last: Seal | None = None) -> Seal:
    return next_seal(last, lines, closed=(0, "1"), at="2", key_id=1, key=KEY)


def chained(lines: dict[int, chain.Line], parts: int) -> list[Seal]:
    """Seals that cover every `parts`th line each, as if transactions had committed in
    that order.
    """
    seals: list[Seal] = []
    for part in range(parts):
        mine = {line_id: lines[line_id] for line_id in lines if line_id % parts == part}
        if mine:
            seals.append(seal_of(mine, seals[-1] if seals else None))
    return seals


def faults(seals: list[Seal], lines: dict[int, chain.Line]) -> set[Fault]:
    found = set()
    previous_id, previous_mac = 0, GENESIS
    for seal in seals:
        if fault := fault_of(seal, previous_id, previous_mac, {1: KEY}):
            found.add(fault)
        previous_id, previous_mac = seal.id, seal.mac
    comparison = Comparison(seals)
    for line_id, line in sorted(lines.items()):
        comparison.add(line_id, line)
    return found | {finding.fault for finding in comparison.findings()}


@given(LINES, st.integers(1, 4))
def test_an_unchanged_log_is_sound(lines: dict[int, chain.Line], parts: int) -> None:
    assert faults(chained(lines, parts), lines) == set()


@given(LINES, st.integers(1, 4), st.data())
def test_a_changed_line_is_found(
    lines: dict[int, chain.Line], parts: int, data: st.DataObject
) -> None:
    seals = chained(lines, parts)
    changed = data.draw(st.sampled_from(list(lines)))
    line = data.draw(st.tuples(VALUES, VALUES, VALUES).filter(lambda line: line != lines[changed]))
    assert faults(seals, {**lines, changed: line}) == {Fault.LINES_CHANGED}


@given(LINES, st.integers(1, 4), st.data())
def test_a_removed_line_is_found_and_named(
    lines: dict[int, chain.Line], parts: int, data: st.DataObject
) -> None:
    seals = chained(lines, parts)
    removed = data.draw(st.sampled_from(list(lines)))
    left = {line_id: line for line_id, line in lines.items() if line_id != removed}
    assert faults(seals, left) == {Fault.LINES_REMOVED}
    comparison = Comparison(seals)
    for line_id, line in left.items():
        comparison.add(line_id, line)
    assert [finding.lines for finding in comparison.findings()] == [[removed]]


@given(LINES, st.integers(2, 4), st.data())
def test_a_removed_seal_is_found(
    lines: dict[int, chain.Line], parts: int, data: st.DataObject
) -> None:
    seals = chained(lines, parts)
    # A removed last seal is found only with knowledge of its number.
    removed = data.draw(st.integers(0, len(seals) - 1))
    left = seals[:removed] + seals[removed + 1 :]
    expected = {Fault.SEAL_REMOVED} if removed < len(seals) - 1 else set()
    assert faults(left, lines) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"id": 2},
        {"ids": "{[1,3)}"},
        {"ids": "{}"},
        {"lines": 4},
        {"digest": bytes(32)},
        {"closed_id": 7},
        {"closed_at": "0"},
        {"previous_mac": bytes(31) + b"\1"},
        {"sealed_at": "3"},
        {"mac": bytes(32)},
        {"mac": b""},
    ],
)
def test_a_changed_seal_is_found(change: dict[str, object]) -> None:
    seal = seal_of({1: ("a",), 2: ("b",), 5: ("c",)})
    assert fault_of(seal, 0, GENESIS, {1: KEY}) is None
    assert fault_of(replace(seal, **change), 0, GENESIS, {1: KEY}) is Fault.SEAL_CHANGED  # type: ignore[arg-type]


def test_another_key_makes_another_seal() -> None:
    seal = seal_of({1: ("a",)})
    assert fault_of(seal, 0, GENESIS, {1: bytes(32)}) is Fault.SEAL_CHANGED
    assert fault_of(seal, 0, GENESIS, {2: KEY}) is Fault.KEY_MISSING


def test_seals_after_a_faulty_one_are_still_verified() -> None:
    first = seal_of({1: ("a",)})
    second = seal_of({2: ("b",)}, first)
    assert fault_of(second, 1, None, {1: KEY}) is None
    assert fault_of(second, 1, bytes(32), {1: KEY}) is Fault.SEAL_REMOVED


@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), max_size=4), st.data())
def test_different_contents_have_different_encodings(
    lines: list[list[str | None]], data: st.DataObject
) -> None:
    others = data.draw(st.lists(st.lists(VALUES, min_size=3, max_size=3), max_size=4))
    same = chain.digest_of(lines) == chain.digest_of(others)
    assert same is (lines == others)


def test_adjacent_values_cannot_be_confused() -> None:
    contents: list[list[str | None]] = [
        ["ab", ""],
        ["a", "b"],
        ["", "ab"],
        [None, "ab"],
        ["ab", None],
        ["\0", "ab"],
        ["\1", "b"],
    ]
    assert len({chain.encoded(values) for values in contents}) == len(contents)


@given(st.sets(st.integers(1, 200)).map(sorted))
def test_ranges_hold_exactly_the_ids(ids: list[int]) -> None:
    ranges = chain.ranges_of(ids)
    assert [line_id for lower, upper in ranges for line_id in range(lower, upper)] == ids
    assert all(first[1] < second[0] for first, second in pairwise(ranges))
    assert chain.read(chain.written(ranges)) == ranges
