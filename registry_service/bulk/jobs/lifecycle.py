"""What may follow what in the life of a job."""

from dataclasses import dataclass
from enum import StrEnum

from registry_service.errors import JobStateForbids


class State(StrEnum):
    """What a job is doing."""

    DRAFT = "draft"  # nothing yet: it can be checked, and its list uploaded
    RUNNING = "running"
    PAUSED = "paused"  # until somebody resumes it
    DONE = "done"
    CANCELLED = "cancelled"  # what it has written stays, until it is undone


class Action(StrEnum):
    """What is done to a job; the last two by the process that runs it."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    UNDO = "undo"
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Status:
    """Where a job is: what it does, and whether forwards or back."""

    state: State
    is_undo: bool = False


FOLLOWS: dict[tuple[State, Action], State] = {
    (State.DRAFT, Action.START): State.RUNNING,
    (State.DRAFT, Action.CANCEL): State.CANCELLED,
    (State.RUNNING, Action.PAUSE): State.PAUSED,
    (State.RUNNING, Action.CANCEL): State.CANCELLED,
    (State.RUNNING, Action.FINISH): State.DONE,
    # It can be resumed when what it failed of has been put right.
    (State.RUNNING, Action.FAIL): State.PAUSED,
    (State.PAUSED, Action.RESUME): State.RUNNING,
    (State.PAUSED, Action.CANCEL): State.CANCELLED,
    (State.PAUSED, Action.UNDO): State.RUNNING,
    (State.DONE, Action.UNDO): State.RUNNING,
    (State.CANCELLED, Action.UNDO): State.RUNNING,
}


def after(status: Status, action: Action) -> Status:
    """Where `action` leads. Raises `JobStateForbids`."""
    state = FOLLOWS.get((status.state, action))
    if state is None:
        raise JobStateForbids(f"a job that is {status.state} has no {action}")
    if action is Action.UNDO:
        if status.is_undo and status.state is not State.CANCELLED:
            raise JobStateForbids("this job is being undone, or was")
        return Status(state, is_undo=True)
    return Status(state, status.is_undo)
