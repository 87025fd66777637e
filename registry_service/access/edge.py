"""The HTTP side: a broker proves itself, asks in its dialect, and is answered in it.

A path is `/<dialect>/<operation>`, and a broker that can send no header puts its secret in front:
`/<secret>/<dialect>/<operation>`. So no path is ever logged here.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import structlog
from prometheus_client import Counter

from chassis.errors import MooringError
from registry_service.access.answering import Access
from registry_service.access.decision import ALLOWED
from registry_service.access.dialects import DIALECTS
from registry_service.access.dialects.asked import TEXT, Asked, Operation, Reply, Unreadable
from registry_service.access.known import Changes
from registry_service.access.presence import Presence
from registry_service.access.questions import (
    UNREADABLE,
    Connect,
    Notice,
    Question,
    Verdict,
)
from registry_service.access.replies import Replies, key_of
from registry_service.access.store import Asker

log = structlog.get_logger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# A username, a password, a client id and a topic may have 64 KB each, and are encoded.
MAX_BODY_BYTES = 1024 * 1024
BEARER = b"Bearer "

VERDICTS = Counter(
    "mooring_access_verdicts_total",
    "What brokers asked and were told, by the reason of a denial",
    ["dialect", "question", "reason"],
)

NOT_FOUND = Reply(404, TEXT, b"there is nothing here\n")
WRONG_METHOD = Reply(405, TEXT, b"GET or POST\n", ((b"allow", b"GET, POST"),))
UNKNOWN_BROKER = Reply(
    401, TEXT, b"this is no broker's secret\n", ((b"www-authenticate", b"Bearer"),)
)
ALIVE = Reply(200, TEXT, b"ok\n")
NOT_READY = Reply(503, TEXT, b"changes of access cannot be read\n", ((b"retry-after", b"1"),))
FAULT = Reply(503, TEXT, b"a fault of ours, which is in the log\n", ((b"retry-after", b"5"),))


class Route(NamedTuple):
    """An operation of a dialect."""

    dialect: str
    operation: Operation


ROUTES = {
    f"/{dialect}/{name}".encode(): Route(dialect, operation)
    for dialect, operations in DIALECTS.items()
    for name, operation in operations.items()
}


class AccessApp:
    """An ASGI application, for brokers only."""

    def __init__(
        self, access: Access, changes: Changes, presence: Presence, replies: Replies
    ) -> None:
        """`changes` knows the brokers' secrets."""
        self._access = access
        self._changes = changes
        self._presence = presence
        self._replies = replies
        self._loop = asyncio.get_running_loop()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serves one request."""
        try:
            reply = await self._reply(scope, receive)
        except MooringError as error:
            reply = _unavailable(error)
        except Exception:
            log.exception("a broker's question failed unexpectedly")
            reply = FAULT
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(reply.body)),
            *reply.headers,
        ]
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(self, scope: Message, receive: Receive) -> Reply:
        path: bytes = scope["raw_path"]
        headers = dict(scope["headers"])
        operation, secret = path, b""
        route = ROUTES.get(operation)
        if route is None:
            if path in (b"/healthz", b"/readyz"):
                is_ready = path == b"/healthz" or self._changes.is_current(self._loop.time())
                return ALIVE if is_ready else NOT_READY
            _, secret, *rest = path.split(b"/", 2)
            operation = b"/" + b"".join(rest)
            route = ROUTES.get(operation)
        if route is None:
            return NOT_FOUND
        if scope["method"] not in ("POST", "GET"):
            return WRONG_METHOD
        shown = secret or headers.get(b"authorization", b"").removeprefix(BEARER)
        # It is looked up by its hash: see registry_service/tokens/known.py.
        asker = self._changes.asker(hashlib.sha256(shown).digest())
        if asker is None:
            return UNKNOWN_BROKER
        self._presence.used(asker.secret_id)
        body = await _body(receive)
        asked = Asked(headers, scope["query_string"], body or b"")
        if body is None:
            return self._unreadable(route, asked)
        now, key = self._loop.time(), key_of(asker, operation, asked)
        given = self._replies.again(asker, key, now)
        if given is not None:
            question, reply = given
            self._note(route, asker, question, ALLOWED, now)
            return reply
        try:
            found = route.operation.read(asked)
        except Unreadable:
            return self._unreadable(route, asked)
        if not found:
            return route.operation.answer(asked, ())
        if isinstance(found[0], Notice):
            self._presence.told(asker.broker_id, cast("Sequence[Notice]", found), now)
            return route.operation.answer(asked, ())
        questions = cast("Sequence[Question]", found)
        at_once = [self._access.at_once(asker, question, now) for question in questions]
        verdicts = [verdict for verdict in at_once if verdict is not None]
        is_at_once = len(verdicts) == len(questions)
        if not is_at_once:
            verdicts = await self._access.answer(asker, questions, now)
        for question, verdict in zip(questions, verdicts, strict=True):
            self._note(route, asker, question, verdict, now)
        reply = route.operation.answer(asked, verdicts)
        if is_at_once and len(questions) == 1:
            self._replies.keep(key, questions[0], verdicts[0], reply, now)
        return reply

    def _note(
        self, route: Route, asker: Asker, question: Question, verdict: Verdict, now: float
    ) -> None:
        if verdict.is_allowed and isinstance(question, Connect):
            client_id, username = question.client_id, question.username
            self._presence.connected(asker.broker_id, client_id, username, now)
        _counted(route.dialect, type(question).__name__.lower(), verdict.reason).inc()

    def _unreadable(self, route: Route, asked: Asked) -> Reply:
        _counted(route.dialect, "", UNREADABLE.reason).inc()
        return route.operation.answer(asked, (UNREADABLE,))


@cache
def _counted(dialect: str, question: str, reason: str) -> Counter:
    """There are few; to look one up by its labels takes longer than to decide."""
    return VERDICTS.labels(dialect, question, reason)


async def _body(receive: Receive) -> bytes | None:
    """None where it is too long."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
    return body


def _unavailable(error: MooringError) -> Reply:
    """For what is none of the client's fault: the broker decides what that means."""
    wait = b"%d" % max(1, round(error.retry_after_s or 1))
    return Reply(503, TEXT, error.reason.encode() + b"\n", ((b"retry-after", wait),))
