"""How fast a queue drains, and when the refused come back: not together, and not for nothing."""

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
def test_the_rate_is_the_real_one(rate: float, batch: int) -> None:
    drain = drained(rate=rate, batch=batch, seconds=5 * batch / rate)
    assert rate * 0.98 < drain.rate(NOW) < rate * 1.02
    assert drain.time_for(int(rate), NOW) < 1.06
    assert drain.rate(NOW + 60) == drain.time_for(100, NOW + 60) == 0


def test_lanes_side_by_side_count_together_and_idle_time_does_not() -> None:
    drain = Drain()
    for n in range(100):
        # Two lanes, each with a batch of 50 every 0.1 s, half a turn apart: 1,000 a second.
        drain.ended(50, begun=n * 0.05 - 0.05, now=n * 0.05 + 0.05)
    assert 900 < drain.rate(5) < 1100
    for n in range(100):
        # A batch of 100 that takes 0.1 s, and then a second of nothing.
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
def test_the_refused_come_back_one_after_the_other_as_fast_as_the_queue_drains(
    waiting: int, refused: int, rate: float
) -> None:
    drain = drained(rate=rate, batch=10)
    schedule = RetrySchedule()
    times = [schedule.next(drain, waiting, 1, NOW) for _ in range(refused)]
    assert all(0 < time <= LONGEST_S for time in times)
    # While the line is not too long: nobody before the queue has drained, nobody two at a time.
    line = times[: max(0, int((LONGEST_S - drain.time_for(waiting + 1, NOW)) * drain.rate(NOW)))]
    assert all(time >= drain.time_for(waiting, NOW) for time in line)
    gaps = [later - sooner for sooner, later in pairwise(line)]
    assert all(gap > 0.9 / drain.rate(NOW) for gap in gaps)


def test_where_nothing_is_known_the_refused_are_spread_all_the_same() -> None:
    schedule, drain = RetrySchedule(), Drain()
    times = [schedule.next(drain, 10, 1, now=0.0) for _ in range(100)]
    assert max(times) - min(times) > 1
    assert min(times) >= 1
