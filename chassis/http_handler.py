"""A base class for handlers of HTTP requests. Errors become answers, and calls end when the client
disconnects.

`chassis/direct_http.py` calls it. Requests of devices and brokers have such handlers.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from chassis.direct_http import Reply
from chassis.errors import MooringError


class Awaited(NamedTuple):
    """A result that the answer needs and that is not available yet.

    `then` turns the result into the answer, or into the next result to wait for. A result that is a
    `MooringError` is raised instead. `abandon` stops waiting, because the client has disconnected.
    """

    future: "asyncio.Future[Any]"
    then: "Callable[[Any], Reply | Awaited]"
    abandon: Callable[[], object]


class RequestHandler(ABC):
    """Serves one request in steps, each of which may raise. A subclass defines `failed`, and the
    steps: `admitted`, `begun` and the functions of an `Awaited`.
    """

    max_body_bytes = 64 * 1024
    __slots__ = ("_answer", "_awaited")

    def __init__(self) -> None:
        self._awaited: Awaited | None = None

    @abstractmethod
    def admitted(self) -> Reply | None:
        """An answer before the body is read; None if the body must be read."""

    @abstractmethod
    def begun(self, body: bytes | None) -> Reply | Awaited:
        """The answer, or the result that it needs; `body` is None if it is too long."""

    @abstractmethod
    def failed(self, error: Exception) -> Reply:
        """The answer to a request after a step raised `error`."""

    def attempt(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """The result of `step`, or the answer to its error."""
        try:
            return step(*arguments)
        except Exception as error:  # noqa: BLE001 - the last resort: `failed` tells them apart
            return self.failed(error)

    # Called by the connection.

    def admit(self) -> Reply | None:
        """Calls `admitted`; its errors become answers."""
        refused: Reply | None = self.attempt(self.admitted)
        return refused

    def ask(self, body: bytes | None, answer: Callable[[Reply], None]) -> None:
        """Calls `answer` once, now or when the needed result is available."""
        self._answer = answer
        self._settle(self.attempt(self.begun, body))

    def leave(self) -> None:
        """Stops waiting."""
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
        # This also breaks a reference cycle, which would keep the handler in memory until a garbage
        # collection.
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not future.cancelled():
            self._settle(self.attempt(_continued, awaited, future))


def _continued(awaited: Awaited, future: "asyncio.Future[Any]") -> Reply | Awaited:
    result = future.result()
    if isinstance(result, MooringError):
        raise result
    return awaited.then(result)
