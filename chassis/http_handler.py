"""A handler of one HTTP request: its errors become answers, and a client that leaves ends its call.

It is what `chassis/direct_http.py` calls. Devices and brokers are served by handlers of this kind.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from chassis.direct_http import Reply
from chassis.errors import MooringError


class Awaited(NamedTuple):
    """A result that the answer needs and that is not known yet.

    `then` turns it into the answer, or into the next thing to wait for. A result that is a
    `MooringError` is raised instead. `abandon` gives up waiting, because the client has left.
    """

    future: "asyncio.Future[Any]"
    then: "Callable[[Any], Reply | Awaited]"
    abandon: Callable[[], object]


class RequestHandler:
    """Serves one request in steps, each of which may raise.

    A subclass has the steps: `admitted`, `begun`, and what an `Awaited` names; and `failed`.
    """

    max_body_bytes = 64 * 1024
    __slots__ = ("_answer", "_awaited")

    def __init__(self) -> None:
        self._awaited: Awaited | None = None

    def admitted(self) -> Reply | None:
        """What is answered before any of the body is read; None where it is to be read."""
        raise NotImplementedError

    def begun(self, body: bytes | None) -> Reply | Awaited:
        """The answer, or what it needs; `body` is None where it is too long."""
        raise NotImplementedError

    def failed(self, error: Exception) -> Reply:
        """The answer to a request of which a step raised `error`."""
        raise NotImplementedError

    def attempt(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """What `step` returns, or the answer to its error."""
        try:
            return step(*arguments)
        except Exception as error:  # noqa: BLE001 - the last resort: `failed` tells them apart
            return self.failed(error)

    # What the connection calls.

    def admit(self) -> Reply | None:
        """As `admitted`, which may raise."""
        refused: Reply | None = self.attempt(self.admitted)
        return refused

    def ask(self, body: bytes | None, answer: Callable[[Reply], None]) -> None:
        """Calls `answer` once, at once or when what it needs is known."""
        self._answer = answer
        self._settle(self.attempt(self.begun, body))

    def leave(self) -> None:
        """Gives up what is waited for."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.abandon()

    def _settle(self, outcome: Reply | Awaited) -> None:
        if isinstance(outcome, Reply):
            self._answer(outcome)
            return
        self._awaited = outcome
        outcome.future.add_done_callback(self._known)

    def _known(self, future: "asyncio.Future[Any]") -> None:
        # It is also what keeps this handler in a cycle, for the garbage collector to find.
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not future.cancelled():
            self._settle(self.attempt(_continued, awaited, future))


def _continued(awaited: Awaited, future: "asyncio.Future[Any]") -> Reply | Awaited:
    result = future.result()
    if isinstance(result, MooringError):
        raise result
    return awaited.then(result)
