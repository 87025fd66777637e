"""A fleet or a key names a broker or a pool."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidInput
from registry_service.administration.one_place import BROKER_OR_POOL, require_one_place

IDS = st.none() | st.integers(1, 3)
PAIRS = st.sampled_from([*BROKER_OR_POOL.items()])


@given(PAIRS, IDS, IDS, st.data())
def test_two_places_are_refused_and_the_changed_one_is_named(
    names: tuple[str, str], broker: int | None, pool: int | None, data: st.DataObject
) -> None:
    before = {names[0]: broker, names[1]: pool if broker is None else None, "name": "a"}
    changed: dict[str, Any] = data.draw(
        st.fixed_dictionaries({}, optional={names[0]: IDS, names[1]: IDS, "name": st.text()})
    )
    after = {**before, **changed}
    refused = ""
    try:
        require_one_place(changed, before)
    except InvalidInput as error:
        refused = error.field or "none"
    is_wrong = after[names[0]] is not None and after[names[1]] is not None
    assert bool(refused) == is_wrong
    if is_wrong:
        assert refused in names
        assert changed[refused] is not None


def test_a_new_row_without_the_columns_is_allowed() -> None:
    for columns in ({}, {"pool_id": 1}, {"mqtt_broker_id": 1}, {"default_pool_id": 1}):
        require_one_place(columns, {})
