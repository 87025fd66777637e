"""Repeated attempts: they take few lines, and all are counted."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from chassis.tally import OVERFLOW, Attempts, Kind, Tally


def kind(subject: str = "1", actor: str = "eve") -> Kind:
    return Kind(actor, f"id of {actor}", "broker.update", subject, "FORBIDDEN")


def test_the_first_is_due_at_once_and_later_ones_share_a_line() -> None:
    tally = Tally(hold_s=60)
    tally.note(kind(), 100.0, request_id="first")
    assert tally.take(100.5) == {kind(): Attempts(1, 100.0, 100.0, "first")}
    for second in range(1, 60):
        tally.note(kind(), 100.0 + second, request_id=f"{second}")
        assert tally.take(100.0 + second) == {}
    assert tally.take(160.5) == {kind(): Attempts(59, 101.0, 159.0, "1")}
    assert tally.take(300.0) == {}


def test_a_subject_without_attempts_is_forgotten_and_then_due_at_once() -> None:
    tally = Tally(hold_s=60)
    tally.note(kind(), 0.0)
    tally.take(0.0)
    assert tally.take(61.0) == {}
    tally.note(kind(), 62.0)
    assert tally.take(62.0)[kind()].count == 1


def test_invented_subjects_get_a_bounded_number_of_lines() -> None:
    tally = Tally(kinds_of_actor=20)
    for number in range(100_000):
        tally.note(kind(str(number)), 1.0)
    tally.note(kind("of another", "bob"), 1.0)
    due = tally.take(1.0)
    assert len(due) == 22
    overflow = Kind("eve", "id of eve", "audit.overflow", "", OVERFLOW)
    assert due[overflow].count == 100_000 - 20
    assert due[kind("of another", "bob")].count == 1


def test_invented_actors_are_bounded_too() -> None:
    tally = Tally(actors=10)
    for number in range(1_000):
        tally.note(kind(actor=f"a{number}"), 1.0)
    due = tally.take(1.0)
    assert len(due) == 11
    assert due[Kind("", "", "audit.overflow", "", OVERFLOW)].count == 990


def test_addresses_are_counted_up_to_a_limit() -> None:
    tally = Tally(addresses=3)
    for number in range(1_000):
        tally.note(kind(), 1.0, address=f"10.0.{number // 250}.{number % 250}")
        tally.note(kind(), 1.0, address="10.9.9.9" if number else "10.0.0.0")
    (attempts,) = tally.take(1.0).values()
    assert attempts.count == 2_000
    assert attempts.addresses == Counter({"10.0.0.0": 2, "10.9.9.9": 999, "10.0.0.1": 1})


STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.floats(0, 50), st.booleans())
    | st.none(),
    max_size=60,
)


@given(STEPS)
def test_every_attempt_is_in_exactly_one_line(
    steps: list[tuple[str, int, float, bool] | None],
) -> None:
    """This holds although writing fails now and then."""
    tally = Tally(hold_s=20, kinds_of_actor=3, actors=1)
    now, noted, written = 0.0, 0, 0
    for step in steps:
        if step is None:
            due = tally.take(now)
            assert all(attempts.count > 0 for attempts in due.values())
            assert len(due) <= 1 + 4 + 1
            written += sum(attempts.count for attempts in due.values())
            continue
        actor, subject, later_s, fails = step
        now += later_s
        tally.note(kind(str(subject), actor), now)
        noted += 1
        if fails:
            tally.put_back(tally.take(now))
    written += sum(attempts.count for attempts in tally.take_all().values())
    assert written == noted
    assert tally.take(now + 100) == {}
