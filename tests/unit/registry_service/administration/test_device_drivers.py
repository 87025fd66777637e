"""Which index a page of devices is read by, and its cursors."""

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidInput
from registry_service.administration.devices.drivers import (
    INDEXED,
    MAX_POINTS,
    Driver,
    Reach,
    drivers_of,
    enumerated,
    farthest,
    points_of,
)
from registry_service.administration.devices.orders import (
    BEGINNING,
    Position,
    cursor_of,
    phases_of,
    position_of,
)
from registry_service.filter_statements import CONDITIONS

ENDS = st.none() | st.integers(0, 9).map(lambda number: [number])
FIRST = ENDS.map(Reach)
REACHES = st.tuples(FIRST, st.lists(st.builds(Reach, ENDS, st.booleans()), max_size=5)).map(
    lambda drawn: [drawn[0], *drawn[1]]
)
VALUES = ["a", "b", "c", ""]
NUMBERS = [1, 2, 3, 0]


@given(REACHES)
def test_the_driver_that_comes_farthest_is_read(reaches: list[Reach]) -> None:
    chosen = reaches[farthest(reaches)]
    assert chosen.is_known
    if any(reach.is_complete for reach in reaches):
        assert chosen.is_complete
    else:
        assert chosen.until == max(reach.until for reach in reaches if reach.is_known)  # type: ignore[type-var]


def values_of(name: str) -> list[Any]:
    return VALUES if INDEXED[name].type == "text" else NUMBERS


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, dict[str, Any], frozenset[str] | None]:
    name = draw(st.sampled_from(sorted(INDEXED)))
    values = st.sampled_from(values_of(name))
    conditions: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                name: values,
                f"not_{name}": st.lists(values, min_size=1, unique=True),
                "is_pinned": st.booleans(),
            },
        )
    )
    within = draw(st.none() | st.sets(st.sampled_from(VALUES), min_size=1).map(frozenset))
    return name, conditions, within


def matches(name: str, conditions: dict[str, Any], within: Any, value: Any) -> bool:
    """Whether a device with this value can match."""
    if name == "fleet_id" and within is not None and value not in within:
        return False
    is_pinned = conditions.get("is_pinned")
    if name == "mqtt_broker_id" and is_pinned is not None and is_pinned is (value == 0):
        return False
    return bool(
        conditions.get(name, value) == value and value not in conditions.get(f"not_{name}", ())
    )


@pytest.mark.parametrize(
    ("name", "conditions"),
    [
        ("mqtt_broker_id", {"is_pinned": True}),
        *(
            (name, {f"not_{name}": [indexed.missing]})
            for name, indexed in INDEXED.items()
            if indexed.missing is not None
        ),
    ],
)
def test_all_devices_with_a_value_are_read_where_there_are_too_many_values(
    name: str, conditions: dict[str, Any]
) -> None:
    [phase] = phases_of(conditions)
    whole = Driver(INDEXED[name].present)
    assert whole in drivers_of(phase, conditions, None, {})
    few = {name: values_of(name)}
    assert whole not in drivers_of(phase, conditions, None, few)
    assert whole not in drivers_of(phase, {}, None, {})


@given(cases())
def test_a_driver_finds_every_value_that_can_match(case: Any) -> None:
    name, conditions, within = case
    present = [value for value in values_of(name) if value != INDEXED[name].missing]
    known = present if name in enumerated(conditions, within) else None
    points = points_of(name, conditions, within, known)
    if points is None:
        return
    # What the index leaves out is among the devices of no point.
    possible = {value for value in values_of(name) if matches(name, conditions, within, value)}
    assert possible <= set(points)


def test_too_many_values_are_not_read_one_after_the_other() -> None:
    conditions = {"not_fleet_id": ["a"]}
    [phase] = phases_of(conditions)
    for count, drivers in ((MAX_POINTS, 2), (MAX_POINTS + 1, 1)):
        values = {"fleet_id": [f"fleet-{number}" for number in range(count)]}
        assert len(drivers_of(phase, conditions, None, values)) == drivers


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_first_driver_reads_a_phase_in_its_order(name: str) -> None:
    value: Any = ["a"] if name.startswith("not_") else "a"
    for phase in phases_of({name: value}):
        first: Driver = drivers_of(phase, {name: value}, None, {})[0]
        assert first.keys == phase.keys
        assert first.points is None


POSITIONS: list[tuple[dict[str, Any], Position]] = [
    ({}, Position(0, [5])),
    ({"fleet_id": "a"}, Position(0, [2**63 - 1])),
    ({"search": "a"}, Position(0, ["a-1"])),
    ({"search": "a"}, Position(1, None)),
    ({"search": "a"}, Position(1, ["\u00e9 \U0001f4a5", 7])),
    ({"registered_since": "x"}, Position(0, ["2026-01-01T00:00:00.5+00:00", 7])),
]


@pytest.mark.parametrize(("conditions", "position"), POSITIONS)
def test_a_cursor_leads_to_its_position(conditions: dict[str, Any], position: Position) -> None:
    cursor = cursor_of(conditions, position)
    assert position_of(conditions, cursor) == position
    assert position_of(conditions, "") == BEGINNING
    with pytest.raises(InvalidInput, match="other conditions"):
        position_of({**conditions, "is_active": True}, cursor)


@given(
    st.sampled_from(POSITIONS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=4,
    ),
    st.integers(0, 3),
)
def test_a_forged_cursor_is_refused(
    case: tuple[dict[str, Any], Position], value: Any, place: int
) -> None:
    conditions, position = case
    parts = json.loads(base64.b64decode(cursor_of(conditions, position), b"-_"))
    if place < len(parts):
        parts[place] = value
    else:
        parts = value
    cursor = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()
    found = None
    with contextlib.suppress(InvalidInput):
        found = position_of(conditions, cursor)
    if found is not None:
        keys = phases_of(conditions)[found.phase].keys
        assert found.keys is None or len(found.keys) == len(keys)


@given(st.text())
def test_no_text_breaks_the_reading_of_a_cursor(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert position_of({}, text) == BEGINNING
