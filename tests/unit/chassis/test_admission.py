"""How fast a queue drains, and when refused callers should retry: spread out, and not in vain."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chassis.admission import LONGEST_S, Drain, RetrySchedule

NOW = 10_000.0


def drained(*, rate: float, batch: int = 100, seconds: float = 3.0) -> Drain:
    """A queue that has drained steadily until `NOW`, one batch after the other."""
    drain = Drain()
    took_s = batch / rate
    for n in range(int(seconds / took_s), 0, -1):
        drain.ended(batch, begun=NOW - n * took_s, now=NOW - (n - 1) * took_s)
    return drain


@given(rate=st.floats(100, 100_000), batch=st.integers(1, 1_000))
def test_the_rate_is_measured(rate: float, batch: int) -> None:
    drain = drained(rate=rate, batch=batch, seconds=5 * batch / rate)
    assert rate * 0.98 < drain.rate(NOW) < rate * 1.02
    assert drain.time_for(int(rate), NOW) < 1.06
    assert drain.rate(NOW + 60) == drain.time_for(100, NOW + 60) == 0


def test_parallel_lanes_count_together_and_idle_time_does_not() -> None:
    drain = Drain()
    for n in range(100):
        # Two lanes alternate, each with a batch of 50 every 0.1 s: 1,000 a second.
        drain.ended(50, begun=n * 0.05 - 0.05, now=n * 0.05 + 0.05)
    assert 900 < drain.rate(5) < 1100
    for n in range(100):
        # A batch of 100 takes 0.1 s, followed by a second without work.
        drain.ended(100, begun=100 + n * 1.1, now=100 + n * 1.1 + 0.1)
    assert 900 < drain.rate(210) < 1100


def test_a_rate_that_changes_is_noticed_within_two_seconds() -> None:
    drain = drained(rate=10_000)
    now = NOW
    for _ in range(8):
        drain.ended(25, begun=now, now=now + 0.25)
        now += 0.25
    assert drain.rate(now) < 1_000


@given(waiting=st.integers(0, 20_000), refused=st.integers(2, 500), rate=st.floats(10, 20_000))
def test_refused_callers_return_one_by_one_as_fast_as_the_queue_drains(
    waiting: int, refused: int, rate: float
) -> None:
    drain = drained(rate=rate, batch=10)
    schedule = RetrySchedule()
    times = [schedule.next(drain, waiting, 1, NOW) for _ in range(refused)]
    assert all(0 < time <= LONGEST_S for time in times)
    # As long as the queue is not too long, no caller returns before it has drained, and no two at
    # once.
    line = times[: max(0, int((LONGEST_S - drain.time_for(waiting + 1, NOW)) * drain.rate(NOW)))]
    assert all(time >= drain.time_for(waiting, NOW) for time in line)
    gaps = [later - sooner for sooner, later in pairwise(line)]
    assert all(gap > 0.9 / drain.rate(NOW) for gap in gaps)


def test_refused_callers_are_spread_even_if_the_rate_is_unknown() -> None:
    schedule, drain = RetrySchedule(), Drain()
    times = [schedule.next(drain, 10, 1, now=0.0) for _ in range(100)]
    assert max(times) - min(times) > 1
    assert min(times) >= 1
