"""The states of a job, and the actions that change them."""

from dataclasses import dataclass
from enum import StrEnum

from registry_service.errors import JobStateForbids


class State(StrEnum):
    """The state of a job."""

    DRAFT = "draft"  # not started: its list can be uploaded, and it can be checked
    RUNNING = "running"
    PAUSED = "paused"  # until it is resumed
    DONE = "done"
    CANCELLED = "cancelled"  # its changes stay until it is undone


class Action(StrEnum):
    """The actions on a job. The process that runs the job takes the last two."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    UNDO = "undo"
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a job, and whether it undoes its changes."""

    state: State
    is_undo: bool = False


FOLLOWS: dict[tuple[State, Action], State] = {
    (State.DRAFT, Action.START): State.RUNNING,
    (State.DRAFT, Action.CANCEL): State.CANCELLED,
    (State.RUNNING, Action.PAUSE): State.PAUSED,
    (State.RUNNING, Action.CANCEL): State.CANCELLED,
    (State.RUNNING, Action.FINISH): State.DONE,
    # A failed job is paused. It can be resumed when the cause is corrected.
    (State.RUNNING, Action.FAIL): State.PAUSED,
    (State.PAUSED, Action.RESUME): State.RUNNING,
    (State.PAUSED, Action.CANCEL): State.CANCELLED,
    (State.PAUSED, Action.UNDO): State.RUNNING,
    (State.DONE, Action.UNDO): State.RUNNING,
    (State.CANCELLED, Action.UNDO): State.RUNNING,
}


def after(status: Status, action: Action) -> Status:
    """The state after `action`. Raises `JobStateForbids`."""
    state = FOLLOWS.get((status.state, action))
    if state is None:
        raise JobStateForbids(f"a job that is {status.state} has no {action}")
    if action is Action.UNDO:
        if status.is_undo and status.state is not State.CANCELLED:
            raise JobStateForbids("this job is being undone, or was")
        return Status(state, is_undo=True)
    return Status(state, status.is_undo)
