"""Devices' requests, which pass by the framework (`chassis/direct_http.py`)."""

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from chassis.direct_http import Head, Reply
from chassis.errors import MooringError
from chassis.log import request_id
from chassis.queue import Call
from chassis.trust import Access
from gateway.access import required
from gateway.held import Waiting
from gateway.problems import http_problem, of_device_error, of_exception, rendered

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def request_id_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The client's own `X-Request-Id` if it is harmless to log, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return value
    # Not a secret, and the kernel's randomness would cost twenty times as much.
    return b"%032x" % random.getrandbits(128)


class DeviceRequest(Struct):
    """A request of a device; `uuid` is the one of the path, if it has one."""

    method: bytes
    uuid: str
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    # The secret of the device, once it has been admitted.
    secret: str = ""
    body: bytes = b""

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"DeviceRequest({self.method!r}, {self.uuid!r})"


class DeviceRoute(Protocol):
    """The handler of one path."""

    methods: Sequence[bytes]
    # Its policy.
    access: Access

    def admit(self, request: DeviceRequest) -> str:
        """The secret that the device shows; before any of the body is read. Raises why not."""

    def ask(self, request: DeviceRequest) -> "Call[Any, Any]":
        """Starts the call. Raises errors of the request."""

    def awaited(self, answer: Any, since: float) -> Waiting | None:
        """The wait of a device that asked at `since`, until its broker holds it; None: no wait."""

    def reply(self, request: DeviceRequest, answer: Any) -> Reply:
        """The HTTP answer for a result."""


class DeviceHandler:
    """Serves one request of a device; every error becomes a problem document."""

    max_body_bytes = 64 * 1024

    def __init__(self, route: DeviceRoute, uuid: str, head: Head) -> None:
        """Serves it with `route`; `uuid` is the one of the path."""
        self.route = route
        self._request = DeviceRequest(head.method, uuid, head.headers, head.client)
        self._request_id = request_id_of(head.headers)
        self._call: Call[Any, Any] | Waiting | None = None

    def admit(self) -> Reply | None:
        """The error of the head, if there is one."""
        return self._attempt(self._admit)

    def ask(self, body: bytes | None, answer: Callable[[Reply], None]) -> None:
        """Answers an error of the body at once, and otherwise the result of the call."""

        def ask() -> Reply | None:
            if body is None:
                return rendered(http_problem(413))
            self._request.body = body
            self._call = call = self.route.ask(self._request)
            call.future.add_done_callback(answered)
            return None

        def answered(future: "asyncio.Future[Any]") -> None:
            if not future.cancelled():
                attempt(lambda: settled(future.result()))

        def settled(result: Any) -> Reply | None:
            """The answer; None while the device waits until its broker holds it."""
            if isinstance(result, MooringError):
                raise result
            since = self._call.since if self._call is not None else 0.0
            waiting = self.route.awaited(result, since)
            if waiting is None:
                return self.route.reply(self._request, result)
            self._call = waiting
            waiting.future.add_done_callback(lambda held: waited(result, held))
            return None

        def waited(result: Any, held: "asyncio.Future[bool]") -> None:
            if not held.cancelled():
                told = result if held.result() else result.while_not_ready()
                attempt(lambda: self.route.reply(self._request, told))

        def attempt(step: Callable[[], Reply | None]) -> None:
            replied = self._attempt(step)
            if replied is not None:
                answer(replied)

        refused = self._attempt(ask)
        if refused is not None:
            answer(refused)

    def leave(self) -> None:
        """Cancels the queued call."""
        if self._call is not None:
            self._call.abandon()

    def _admit(self) -> Reply | None:
        if self._request.method not in self.route.methods:
            allowed = b", ".join(self.route.methods).decode()
            return rendered(http_problem(405, headers={"Allow": allowed}))
        required(getattr(self.route, "access", None))
        self._request.secret = self.route.admit(self._request)
        return None

    def _attempt(self, step: Callable[[], Reply | None]) -> Reply | None:
        """The answer, if `step` returns one or fails; otherwise None."""
        token = request_id.set(self._request_id.decode())
        try:
            reply = step()
        except MooringError as error:
            reply = rendered(of_device_error(error))
        except Exception as error:  # noqa: BLE001 - the last resort; what is unexpected is logged
            reply = rendered(of_exception(error))
        finally:
            request_id.reset(token)
        if reply is None:
            return None
        head = b"x-content-type-options: nosniff\r\nx-request-id: %b\r\n%b"
        return Reply(reply.status, head % (self._request_id, reply.head), reply.body)
