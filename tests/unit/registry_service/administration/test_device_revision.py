"""The revision of a device stands for the values that administrators can change."""

from types import SimpleNamespace
from typing import Any, cast

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from chassis.revisions import BITS
from registry_service.administration.devices.revision import CHANGED, revision_of

TEXTS = st.text(max_size=20)
NUMBERS = st.none() | st.integers(1, 2**31 - 1)
DEGREES = st.none() | st.floats(-180, 180)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(1, 2**63 - 1),
    "device_name": TEXTS,
    "device_type": TEXTS,
    "mqtt_broker_id": NUMBERS,
    "pool_id": NUMBERS,
    "is_active": st.booleans(),
    "region": TEXTS,
    "latitude": DEGREES,
    "longitude": DEGREES,
    "reprovisioning_allowed": st.booleans(),
}
ROWS = st.fixed_dictionaries(VALUES)


def of(values: dict[str, Any]) -> int:
    return revision_of(cast("sa.Row[Any]", SimpleNamespace(**values, told_at="anything")))


@given(ROWS, st.data())
def test_it_changes_with_every_value_and_only_then(
    row: dict[str, Any], data: st.DataObject
) -> None:
    assert set(row) == set(CHANGED)
    assert 1 <= of(row) < 2**BITS
    assert of(dict(row)) == of(row)
    name = data.draw(st.sampled_from(CHANGED))
    other = row | {name: data.draw(VALUES[name])}
    assert (of(other) == of(row)) == (repr(other) == repr(row))


@given(ROWS, st.sampled_from(["", "a"]))
def test_a_text_cannot_reach_into_the_next_value(row: dict[str, Any], text: str) -> None:
    first = row | {"device_name": text + "b", "device_type": "c"}
    second = row | {"device_name": text, "device_type": "bc"}
    assert of(first) != of(second)
