"""Waves: which devices are reached when, and that stopping a rollout restores everything."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_service.resolution import (
    Broker,
    Directory,
    FleetRollout,
    FleetRule,
    Placement,
    Resolution,
    Source,
    resolve,
)
from domain.waves import POSITIONS, is_reached, position, wave_of

PERCENTS = st.integers(0, POSITIONS).map(lambda hundredths: hundredths / 100)
SALTS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
UUIDS = st.lists(SALTS, min_size=1, max_size=30, unique=True)
TARGET = 2
CROWD = [f"device-{n}" for n in range(20_000)]


@st.composite
def directories(draw: st.DrawFn) -> Directory:
    """A fleet without a rollout, and a target that may or may not be able to serve."""
    brokers = {
        1: Broker(1, draw(st.booleans())),
        TARGET: Broker(TARGET, draw(st.booleans())),
        3: Broker(3),
    }
    allowed_ids = draw(st.none() | st.frozensets(st.sampled_from([1, TARGET, 3])))
    rule = FleetRule(draw(st.sampled_from([None, 1, 3])), allowed_ids)
    return Directory(brokers, {"north": rule}, draw(st.sampled_from([None, 3])))


def under_way(directory: Directory, salt: str, percent: float) -> Directory:
    """The same directory with a rollout."""
    rule = replace(directory.fleets["north"], rollout=FleetRollout(TARGET, percent, salt))
    return replace(directory, fleets={"north": rule})


def resolutions(
    directory: Directory, uuids: list[str], pin: int | None = None
) -> dict[str, tuple[Source | None, int | None]]:
    """The step that decides for each device, and its broker."""

    def resolved(uuid: str) -> Resolution:
        rollout = directory.fleets["north"].rollout
        wave = wave_of(rollout.salt, rollout.percent, uuid) if rollout else ""
        return resolve(Placement(pin, "north", wave=wave), directory)

    return {uuid: (found.source, found.broker_id) for uuid in uuids for found in [resolved(uuid)]}


@given(SALTS, UUIDS, PERCENTS, PERCENTS)
def test_a_wave_only_grows(salt: str, uuids: list[str], one: float, other: float) -> None:
    narrow, wide = sorted((one, other))
    for uuid in uuids:
        assert not wave_of(salt, narrow, uuid) or wave_of(salt, wide, uuid) == salt


@given(SALTS, UUIDS)
def test_zero_percent_reaches_no_device_and_hundred_reaches_all(
    salt: str, uuids: list[str]
) -> None:
    assert not any(wave_of(salt, 0, uuid) for uuid in uuids)
    assert all(wave_of(salt, 100, uuid) == salt for uuid in uuids)


@given(directories(), SALTS, UUIDS, st.lists(PERCENTS, min_size=1, max_size=5))
def test_stopping_and_narrowing_restore_what_was_resolved_before(
    directory: Directory, salt: str, uuids: list[str], percents: list[float]
) -> None:
    """The result depends on the present state of a rollout, not on earlier ones."""
    seen = {}
    for percent in percents:
        seen[percent] = resolutions(under_way(directory, salt, percent), uuids)
    for percent in reversed(percents):
        assert resolutions(under_way(directory, salt, percent), uuids) == seen[percent]
    assert resolutions(under_way(directory, salt, 0), uuids) == resolutions(directory, uuids)


@given(directories(), SALTS, UUIDS, PERCENTS, st.sampled_from([None, 1, TARGET, 3]))
def test_a_rollout_changes_nothing_for_devices_that_it_has_not_reached(
    directory: Directory, salt: str, uuids: list[str], percent: float, pin: int | None
) -> None:
    before = resolutions(directory, uuids, pin)
    after = resolutions(under_way(directory, salt, percent), uuids, pin)
    for uuid in uuids:
        if not is_reached(percent, position(salt, uuid)) or before[uuid][0] is Source.DEVICE:
            assert after[uuid] == before[uuid]
        else:
            assert after[uuid] in ((Source.ROLLOUT, TARGET), before[uuid])


@given(directories(), SALTS, UUIDS)
def test_completing_it_moves_no_device_that_was_reached(
    directory: Directory, salt: str, uuids: list[str]
) -> None:
    rule = replace(directory.fleets["north"], broker_id=TARGET)
    completed = resolutions(replace(directory, fleets={"north": rule}), uuids)
    for uuid, (source, broker_id) in resolutions(under_way(directory, salt, 100), uuids).items():
        if source is Source.ROLLOUT:
            assert completed[uuid] == (Source.FLEET, broker_id)


@pytest.mark.parametrize("percent", [0.1, 1, 10, 50, 90])
def test_the_share_of_reached_devices_is_the_percentage(percent: float) -> None:
    share = percent / 100
    # Four standard deviations of so many draws.
    tolerance = 4 * (share * (1 - share) / len(CROWD)) ** 0.5
    for salt in ("spring", "5f2c9a0e7d41b836"):
        reached = sum(bool(wave_of(salt, percent, uuid)) for uuid in CROWD)
        assert abs(reached / len(CROWD) - share) <= tolerance, salt


def test_another_salt_gives_another_order() -> None:
    first, second = (
        {uuid for uuid in CROWD if wave_of(salt, 10, uuid)} for salt in ("spring", "autumn")
    )
    # About as many as in two independent tenths.
    assert abs(len(first & second) - len(CROWD) / 100) < 60


@given(st.integers(0, POSITIONS))
def test_a_percent_with_two_decimals_reaches_exactly_that_many_positions(hundredths: int) -> None:
    percent = hundredths / 100
    assert [is_reached(percent, place) for place in (hundredths - 1, hundredths)] == [True, False]
