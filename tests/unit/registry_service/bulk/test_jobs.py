"""The states of a job, its chunks, and the result of a dry run."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_service.bulk.jobs.checking import Destination, Placing, placings_of, summed
from registry_service.bulk.jobs.chunks import (
    GOAL_S,
    LARGEST,
    SMALLEST,
    SPAN,
    extent,
    next_size,
    reached_by,
)
from registry_service.bulk.jobs.lifecycle import Action, State, Status, after
from registry_service.bulk.jobs.outcomes import tallied
from registry_service.errors import JobStateForbids

ACTIONS = st.lists(st.sampled_from(list(Action)), max_size=30)


@given(ACTIONS)
def test_a_job_starts_once_and_is_undone_once(actions: list[Action]) -> None:
    status, done = Status(State.DRAFT), []
    for action in actions:
        try:
            before, status = status, after(status, action)
        except JobStateForbids:
            continue
        done.append(action)
        assert not before.is_undo or status.is_undo
        assert (status.state is State.RUNNING) == (
            action in (Action.START, Action.RESUME, Action.UNDO)
        )
        assert before != Status(State.DONE, is_undo=True)
    assert done.count(Action.START) <= 1
    assert not done or done[0] in (Action.START, Action.CANCEL)


@pytest.mark.parametrize("state", [State.RUNNING, State.DRAFT])
def test_a_running_job_and_a_draft_cannot_be_undone(state: State) -> None:
    with pytest.raises(JobStateForbids):
        after(Status(state), Action.UNDO)


@given(
    st.sets(st.integers(1, 3 * SPAN), max_size=50).map(sorted),
    st.integers(1, 7),
    st.booleans(),
)
def test_chunks_cover_each_row_once_and_end(numbers: list[int], size: int, is_sparse: bool) -> None:
    last = numbers[-1] if numbers else 0
    reached, seen = 0, []
    for _ in range(60):
        chunk = extent(reached, last, size, is_sparse=is_sparse)
        found = [number for number in numbers if chunk.reached < number <= chunk.until][:size]
        seen += found
        reached = reached_by(chunk, len(found), max(found, default=0))
        if reached >= last:
            break
    assert (seen, reached) == (numbers, last)


@given(st.integers(SMALLEST, LARGEST), st.floats(0, 100))
def test_after_a_slow_chunk_the_next_is_smaller(size: int, took_s: float) -> None:
    following = next_size(size, size, took_s)
    assert SMALLEST <= following <= LARGEST
    if took_s > GOAL_S * 1.1:
        assert following < size or size == SMALLEST
    if took_s < GOAL_S / 1.1:
        assert following > size or size == LARGEST
    assert next_size(size, size - 1, took_s) == size


def test_rows_change_their_outcome_and_are_counted_once() -> None:
    assert tallied({"pending": 5, "INVALID_ROW": 2}, {"moved": 3, "unchanged": 2}, "pending") == {
        "INVALID_ROW": 2,
        "moved": 3,
        "unchanged": 2,
    }
    assert tallied({"moved": 1}, {"moved": 2}, None) == {"moved": 3}


@dataclass
class Group:
    """A group of rows, as the store finds it."""

    previous: int | None
    target: int | None
    fleet_id: str
    outcome: str
    devices: int
    wave: str = ""
    revision: int = 1

    @property
    def first_uuid(self) -> str:
        return f"{self.fleet_id}-first"

    @property
    def last_uuid(self) -> str:
        return f"{self.fleet_id}-last"


def test_groups_with_the_same_move_are_joined() -> None:
    groups = [
        Group(None, 2, "a", "moved", 10),
        Group(None, 2, "b", "moved", 5),
        Group(1, 2, "c", "moved", 20),
        Group(2, 2, "d", "unchanged", 3),
        Group(1, 2, "e", "BROKER_NOT_ALLOWED", 4),
    ]
    destinations: dict[Placing, Destination] = {}
    for group in groups[:3]:
        before, after_ = placings_of(group)
        source = "default" if group.previous is None else "device"
        destinations |= {before: Destination(1, source), after_: Destination(2, "device")}
    check = summed(groups, destinations)
    assert check.outcomes == {"BROKER_NOT_ALLOWED": 4, "moved": 35, "unchanged": 3}
    assert [(move.before, move.devices) for move in check.moves] == [
        (Destination(1, "device"), 20),
        (Destination(1, "default"), 15),
    ]
    assert check.moves[1].examples == ["a-first", "a-last", "b-first", "b-last"]
