"""Devices' requests, which are served without Litestar (`chassis/direct_http.py`)."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from litestar import Response
from msgspec import Struct

from chassis.direct_http import Head, Reply
from chassis.errors import MooringError
from chassis.http_handler import Awaited, RequestHandler
from chassis.log import request_id
from chassis.queue import Call
from chassis.trust import Access
from gateway.access import required
from gateway.held import Waiting
from gateway.problems import Problem, http_problem, of_device_error, of_exception, rendered

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def request_id_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The client's own `X-Request-Id` if it is safe to log, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return value
    # The id is not a secret, and random bytes of the kernel would take twenty times as long.
    return b"%032x" % random.getrandbits(128)


class DeviceRequest(Struct):
    """A request of a device. `uuid` is the uuid in the path, or empty."""

    method: bytes
    uuid: str
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    # The secret of the device, once it has been admitted.
    secret: str = ""
    body: bytes = b""

    def __repr__(self) -> str:
        """Shows no secrets."""
        return f"DeviceRequest({self.method!r}, {self.uuid!r})"


class DeviceRoute(Protocol):
    """The handler of one path."""

    methods: Sequence[bytes]
    # The policy of the route.
    access: Access

    def admit(self, request: DeviceRequest) -> str:
        """Returns the device's secret. It is called before the body is read. Raises the errors of
        the request's head.
        """

    def ask(self, request: DeviceRequest) -> "Call[Any, Any]":
        """Starts the call. Raises errors of the request."""

    def awaited(self, answer: Any, since: float) -> Waiting | None:
        """Starts the wait until the device's broker holds it; None if there is no wait. The request
        came at `since`.
        """

    def reply(self, request: DeviceRequest, answer: Any) -> Reply:
        """The HTTP answer for a result."""


class DeviceHandler(RequestHandler):
    """Serves one request of a device; every error becomes a problem document."""

    __slots__ = ("_note_refused", "_request", "_request_id", "_since", "route")

    def __init__(
        self,
        route: DeviceRoute,
        uuid: str,
        head: Head,
        note_refused: Callable[[str], None] | None = None,
    ) -> None:
        """Serves the request with `route`; `uuid` is the uuid in the path, or empty.

        `note_refused` is called with the reason of a problem that the registry does not know of.
        """
        self._note_refused = note_refused
        self.route = route
        self._request = DeviceRequest(head.method, uuid, head.headers, head.client)
        self._request_id = request_id_of(head.headers)

    def admitted(self) -> Reply | None:
        """The error in the request's head, or None."""
        if self._request.method not in self.route.methods:
            allowed = b", ".join(self.route.methods).decode()
            return self._refused(http_problem(405, headers={"Allow": allowed}))
        required(getattr(self.route, "access", None))
        self._request.secret = self.route.admit(self._request)
        return None

    def begun(self, body: bytes | None) -> Reply | Awaited:
        """An error in the body, or the started call."""
        if body is None:
            return self._refused(http_problem(413))
        self._request.body = body
        call = self.route.ask(self._request)
        self._since = call.since
        return Awaited(call.future, self._called, call.abandon)

    def failed(self, error: Exception) -> Reply:
        """The error as a problem document."""
        if not isinstance(error, MooringError):
            return self._refused(of_exception(error))
        response = of_device_error(error)
        # The registry has counted its own refusals.
        return rendered(response) if error.is_of_item else self._refused(response)

    def attempt(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a step with the request's id in the log, and adds the id to the answer."""
        token = request_id.set(self._request_id.decode())
        try:
            outcome = super().attempt(step, *arguments)
        finally:
            request_id.reset(token)
        if not isinstance(outcome, Reply):
            return outcome
        head = b"x-content-type-options: nosniff\r\nx-request-id: %b\r\n%b"
        return Reply(outcome.status, head % (self._request_id, outcome.head), outcome.body)

    def _refused(self, response: Response[Problem]) -> Reply:
        if self._note_refused is not None:
            self._note_refused(response.content.reason)
        return rendered(response)

    def _called(self, result: Any) -> Reply | Awaited:
        """Returns the answer, or starts the wait until the device's broker holds it."""
        waiting = self.route.awaited(result, self._since)
        if waiting is None:
            return self.route.reply(self._request, result)

        def waited(is_held: bool) -> Reply:
            answer = result if is_held else result.while_not_ready()
            return self.route.reply(self._request, answer)

        return Awaited(waiting.future, waited, waiting.abandon)
