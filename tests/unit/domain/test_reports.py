"""Reports of devices count against a broker only if they are many, and of several fleets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.reports import MIN_DEVICES, MIN_FLEETS, Reports, is_out_of_reach

COUNTS = st.integers(0, 100)


@pytest.mark.parametrize(
    ("failing", "fleets", "connected", "expected"),
    [
        (MIN_DEVICES, MIN_FLEETS, 0, True),
        (MIN_DEVICES - 1, MIN_FLEETS, 0, False),
        # One customer may make up any number of devices.
        (1_000_000, MIN_FLEETS - 1, 0, False),
        # Half is not more than half.
        (50, 3, 50, False),
        (51, 3, 50, True),
        (0, 0, 0, False),
    ],
)
def test_the_limits(failing: int, fleets: int, connected: int, *, expected: bool) -> None:
    assert is_out_of_reach(Reports(failing, fleets, connected)) is expected


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_devices_that_reach_it_never_count_against_it(
    failing: int, fleets: int, connected: int, more: int
) -> None:
    if is_out_of_reach(Reports(failing, fleets, connected + more)):
        assert is_out_of_reach(Reports(failing, fleets, connected))
