"""Gives every request of people an id, and adds features of HTTP that Litestar lacks."""

from collections.abc import Awaitable, Callable
from typing import Literal

from litestar.types import ASGIApp, HTTPScope, Message, Receive, Send

from chassis import log
from chassis.direct_http import Reply
from chassis.http_target import Target
from gateway.context import IS_HEAD, KEY, Context
from gateway.device_handler import request_id_of
from gateway.problems import http_problem, rendered

# There are only HTTP requests, no websockets.
HttpApp = Callable[[HTTPScope, Receive, Send], Awaitable[None]]

# Litestar does not support HEAD (RFC 9110, section 9.3.2), and its answer to OPTIONS lacks some
# methods. No route has TRACE, so Litestar's 405 for TRACE names all methods.
ANSWERED_AS: dict[str, Literal["GET", "TRACE"]] = {"HEAD": "GET", "OPTIONS": "TRACE"}


def adapted(app: ASGIApp, context: Context) -> HttpApp:
    """Wraps `app`: requests get `context`, and an id for their logs, calls and answers.

    The client's own `X-Request-Id` is used if it is safe to log.
    """

    async def identified(scope: HTTPScope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(list(scope["headers"]))
        # Every request runs in its own task, with its own context.
        log.request_id.set(request_id.decode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        if Target(scope["path"].encode(), b"").is_nowhere:
            # Litestar would remove empty segments.
            await _send(rendered(http_problem(404)), send_with_id)
            return
        if instead := ANSWERED_AS.get(scope["method"]):
            # The scope is copied, because the server reads the method in its own scope to leave out
            # the body of an answer to HEAD.
            scope["state"][IS_HEAD] = scope["method"] == "HEAD"
            scope = {**scope, "method": instead}
        scope["state"][KEY] = context
        await app(scope, receive, send_with_id)

    return identified


async def _send(reply: Reply, send: Send) -> None:
    headers = [
        (name, value)
        for name, _, value in (line.partition(b": ") for line in reply.head.splitlines())
    ]
    headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})
