"""A base class for handlers of HTTP requests. Errors become answers, and calls end when the client
disconnects.

`chassis/direct_http.py` calls it. Requests of devices and brokers have such handlers.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from chassis.direct_http import Reply


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
    __slots__ = ("_awaited",)

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
        self._awaited: Awaited | None = None
        self._settle(self.attempt(self.begun, body), answer)

    def leave(self) -> None:
        """Stops waiting."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.abandon()

    # `answer` holds the request, which holds this handler. If the handler kept it, only a garbage
    # collection would free each request, and collecting stops the process for some 50 ms.

    def _settle(self, outcome: Reply | Awaited, answer: Callable[[Reply], None]) -> None:
        if isinstance(outcome, Reply):
            answer(outcome)
            return
        self._awaited = outcome
        outcome.future.add_done_callback(partial(self._known, answer))

    def _known(self, answer: Callable[[Reply], None], future: "asyncio.Future[Any]") -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is None or future.cancelled():
            return
        result = future.exception() or future.result()
        if isinstance(result, Exception):
            # It is not raised here: its traceback would hold it, and with it this request.
            self._settle(self.attempt(self.failed, result), answer)
        else:
            self._settle(self.attempt(awaited.then, result), answer)
