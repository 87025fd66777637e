"""Rate limits for devices, with a clock that the test sets."""

import os
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.config import load
from gateway import limits, problems
from gateway.config import GatewayConfig
from gateway.limits import Limit, Limits, RateLimited, limit_of

CLIENT = ("192.0.2.1", 40000)
EPOCH_MS = 86_400_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = EPOCH_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admitted(held: Limits, tries: int, client: tuple[str, int] = CLIENT, key: str = "") -> int:
    """The number of requests that are admitted of so many at once."""
    refused = 0
    for _ in range(tries):
        try:
            held.admit(client, key)
        except RateLimited:
            refused += 1
    return tries - refused


def refusal(held: Limits, client: tuple[str, int] = CLIENT, key: str = "") -> RateLimited:
    with pytest.raises(RateLimited) as refused:
        held.admit(client, key)
    return refused.value


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 999])
@pytest.mark.parametrize("period_s", [1, 60, 3600])
def test_exactly_as_many_requests_at_once_as_the_limit_are_admitted(
    clock: Clock, count: int, period_s: int
) -> None:
    held = Limits(Limit(count, period_s), None, clock)
    assert admitted(held, count + 5, key="a") == count
    # Other callers have their own limits.
    assert admitted(held, count + 5, key="b") == count


def test_the_allowance_refills_evenly_up_to_the_limit(clock: Clock) -> None:
    held = Limits(Limit(60, 60), None, clock)
    assert admitted(held, 100, key="a") == 60
    clock.now_ms += 999
    assert admitted(held, 5, key="a") == 0
    clock.now_ms += 1
    assert admitted(held, 5, key="a") == 1
    clock.now_ms += 10_000
    assert admitted(held, 20, key="a") == 10
    clock.now_ms += 3_600_000
    assert admitted(held, 100, key="a") == 60


@given(
    count=st.integers(1, 50),
    period_s=st.sampled_from([1, 60, 3600]),
    pauses_ms=st.lists(st.integers(0, 5000), max_size=80),
)
def test_no_interval_admits_more_than_the_limit_and_the_refill(
    count: int, period_s: int, pauses_ms: list[int]
) -> None:
    clock = Clock()
    held = Limits(Limit(count, period_s), None, clock)
    got = 0
    for pause_ms in pauses_ms:
        clock.now_ms += pause_ms
        got += admitted(held, 2, key="a")
        passed_ms = clock.now_ms - EPOCH_MS
        assert got <= count + passed_ms * count / (period_s * 1000)


def test_refused_callers_get_different_times_at_which_they_would_be_admitted(clock: Clock) -> None:
    held = Limits(Limit(2, 3600), None, clock)
    assert admitted(held, 2, key="a") == 2
    waits_s = [refusal(held, key="a").retry_after_s for _ in range(50)]
    assert all(1800 <= wait_s <= 1860 for wait_s in waits_s)
    assert max(waits_s) - min(waits_s) > 10
    # A refused request uses no allowance.
    clock.now_ms += 1_800_000
    assert admitted(held, 2, key="a") == 1


def test_a_short_limit_is_not_spread_beyond_its_period(clock: Clock) -> None:
    held = Limits(Limit(10, 1), None, clock)
    assert admitted(held, 10, key="a") == 10
    assert all(0.1 <= refusal(held, key="a").retry_after_s <= 1.1 for _ in range(50))


def test_an_address_is_counted_whatever_its_key(clock: Clock) -> None:
    held = Limits(None, Limit(3, 60), clock)
    assert admitted(held, 2, key="a") == 2
    assert admitted(held, 2, ("192.0.2.1", 50000)) == 1
    assert "address" in refusal(held, key="b").message
    assert admitted(held, 2, ("192.0.2.2", 50000)) == 2


def test_a_request_without_a_key_is_not_a_registration(clock: Clock) -> None:
    held = Limits(Limit(1, 60), None, clock)
    assert admitted(held, 10) == 10


def test_a_request_refused_for_its_address_does_not_count_for_its_key(clock: Clock) -> None:
    held = Limits(Limit(2, 60), Limit(1, 60), clock)
    assert admitted(held, 10, ("192.0.2.1", 1), "a") == 1
    assert admitted(held, 10, ("192.0.2.2", 1), "a") == 1
    assert "key" in refusal(held, ("192.0.2.3", 1), "a").message


def test_a_caller_without_an_address_is_limited_by_its_key_alone(clock: Clock) -> None:
    held = Limits(Limit(2, 60), Limit(1, 60), clock)
    held.admit(None, "a")
    held.admit(None, "a")
    with pytest.raises(RateLimited):
        held.admit(None, "a")


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("not:an:address", "not:an:address", True),
        ("not:an:address", "nor:this", False),
    ],
)
def test_an_ipv6_host_is_counted_by_its_network(
    clock: Clock, one: str, other: str, are_one: bool
) -> None:
    held = Limits(None, Limit(1, 60), clock)
    assert admitted(held, 1, (one, 1)) == 1
    assert admitted(held, 1, (other, 1)) == (0 if are_one else 1)


def test_memory_is_bounded_and_active_callers_are_kept(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_KNOWN", 100)
    held = Limits(Limit(3, 3600), Limit(1, 3600), clock)
    for i in range(1000):
        held.admit((f"10.0.{i // 250}.{i % 250}", 1), f"invented-{i}")
        if i % 90 == 0:
            admitted(held, 1, (f"198.51.100.{i // 90}", 1), "in use")
    assert held._keys is not None
    assert held._addresses is not None
    assert len(held._keys._states) == len(held._addresses._states) == 100
    assert admitted(held, 1, ("203.0.113.1", 1), "in use") == 0
    # The keys are digests, not secrets.
    assert {len(key) for key in held._keys._states} == {32}


@given(count=st.integers(1, 50), pauses_ms=st.lists(st.integers(0, 5000), max_size=40))
def test_giving_back_restores_exactly_what_was_taken(count: int, pauses_ms: list[int]) -> None:
    clock = Clock()
    held = Limits(Limit(count, 60), Limit(count, 60), clock)
    for pause_ms in pauses_ms:
        held.admit(CLIENT, "a")
        clock.now_ms += pause_ms
        held.give_back(CLIENT, "a")
    assert admitted(held, 2 * count + 2, key="a") == count
    # An unknown caller gets nothing.
    held.give_back(("192.0.2.9", 1), "b")
    assert admitted(held, count + 1, ("192.0.2.9", 1), "b") == count


def test_a_refusal_has_the_configured_message(clock: Clock) -> None:
    held = Limits(Limit(1, 60), Limit(2, 60), clock, key_fault="a", address_fault="b")
    held.admit(CLIENT, "x")
    assert [refusal(held, key="x").message for _ in range(2)] == ["a", "b"]


def test_without_settings_there_are_no_limits() -> None:
    assert Limits.of(None, None) is None
    assert Limits.of(Limit(1, 1), None) is not None
    assert Limits.of(None, Limit(1, 1)) is not None


def test_a_refusal_is_429_with_retry_after() -> None:
    error = RateLimited("too many", retry_after_s=2.1)
    response = problems.of_error(error)
    assert response.status_code == 429
    assert response.headers["Retry-After"] in ("3", "4")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.content.reason == "RATE_LIMITED"
    assert response.content.title == "Too Many Requests"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("600000/minute", Limit(600_000, 60)),
        ("10/second", Limit(10, 1)),
        (" 1/hour ", Limit(1, 3600)),
        ("100000/second", Limit(100_000, 1)),
        ("", None),
        (" ", None),
    ],
)
def test_a_setting_is_a_number_and_a_period(text: str, expected: Limit | None) -> None:
    assert limit_of(text) == expected


@pytest.mark.parametrize(
    "text",
    ["0/minute", "-1/minute", "10", "10/day", "1e3/minute", "ten/minute", "10/minutely", "x"],
)
def test_an_invalid_setting_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="600/minute"):
        limit_of(text)


@pytest.mark.parametrize("text", ["100001/second", "6000001/minute", "999999999999/hour"])
def test_a_limit_that_no_process_reaches_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="leave it empty"):
        limit_of(text)


def configured(secret: Path, **variables: str) -> GatewayConfig:
    secret.write_text("x" * 32)
    with mock.patch.dict(os.environ, {"SERVICE_SECRET_FILE": str(secret), **variables}, clear=True):
        return load(GatewayConfig)


def test_there_are_no_limits_by_default(tmp_path: Path) -> None:
    config = configured(tmp_path / "secret")
    assert config.limit_per_key is None
    assert config.limit_per_address is None


def test_the_environment_sets_both_limits(tmp_path: Path) -> None:
    config = configured(
        tmp_path / "secret", LIMIT_PER_KEY="600/minute", LIMIT_PER_ADDRESS="20/second"
    )
    assert config.limit_per_key == Limit(600, 60)
    assert config.limit_per_address == Limit(20, 1)


def test_every_wrong_limit_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as refused:
        configured(tmp_path / "secret", LIMIT_PER_KEY="many", LIMIT_PER_ADDRESS="1/eon")
    assert "LIMIT_PER_KEY: Value error, must be empty" in str(refused.value)
    assert "LIMIT_PER_ADDRESS: Value error, must be empty" in str(refused.value)
