"""The HTTP side: a broker proves itself, asks in its dialect, and is answered in it.

A path is `/<dialect>/<operation>`, and a broker that can send no header puts its secret in front:
`/<secret>/<dialect>/<operation>`. So no path is ever logged here.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import structlog

from chassis import direct_http
from chassis.bearer import bearer
from chassis.direct_http import Head
from chassis.errors import MooringError, Unauthenticated
from chassis.queue import Call
from registry_service.admission.decision import ALLOWED, outward
from registry_service.admission.listener.answering import Answering, Lookup, Seen
from registry_service.admission.listener.dialects import DIALECTS
from registry_service.admission.listener.dialects.asked import (
    TEXT,
    Asked,
    DialectReply,
    Operation,
    Unreadable,
)
from registry_service.admission.listener.presence import Presence
from registry_service.admission.listener.reply_cache import ReplyCache, key_of
from registry_service.admission.listener.store import Asker
from registry_service.admission.listener.subject_cache import Changes
from registry_service.admission.listener.verdicts import VERDICTS
from registry_service.admission.listener.wrong_secrets import WrongSecrets
from registry_service.admission.questions import (
    UNREADABLE,
    Connect,
    Notice,
    Question,
    Verdict,
)

log = structlog.get_logger(__name__)

# A username, a password, a client id and a topic may have 64 KB each, and are encoded.
MAX_BODY_BYTES = 1024 * 1024
# Brokers have few secrets; one may be shown in more ways than one.
MAX_SHOWN = 10_000

NOT_FOUND = DialectReply(404, TEXT, b"there is nothing here\n")
WRONG_METHOD = DialectReply(405, TEXT, b"GET or POST\n", ((b"allow", b"GET, POST"),))
UNKNOWN_BROKER = DialectReply(
    401, TEXT, b"this is no broker's secret\n", ((b"www-authenticate", b"Bearer"),)
)
TOO_MANY = DialectReply(429, TEXT, b"too many wrong secrets\n", ((b"retry-after", b"60"),))
ALIVE = DialectReply(200, TEXT, b"ok\n")
NOT_READY = DialectReply(
    503, TEXT, b"changes of access cannot be read\n", ((b"retry-after", b"1"),)
)
FAULT = DialectReply(
    503, TEXT, b"a fault of ours, which is in the log\n", ((b"retry-after", b"5"),)
)


class DialectRoute(NamedTuple):
    """An operation of a dialect."""

    dialect: str
    operation: Operation


ROUTES = {
    f"/{dialect}/{name}".encode(): DialectRoute(dialect, operation)
    for dialect, operations in DIALECTS.items()
    for name, operation in operations.items()
}


class BrokerHandlers:
    """Serves brokers, each request by a handler of its own."""

    def __init__(
        self,
        answering: Answering,
        changes: Changes,
        presence: Presence,
        reply_cache: ReplyCache,
        wrong_secrets: WrongSecrets,
    ) -> None:
        """`changes` knows the brokers' secrets, and `wrong_secrets` counts those that are wrong."""
        self.wrong_secrets = wrong_secrets
        self.answering = answering
        self.changes = changes
        self.presence = presence
        self.reply_cache = reply_cache
        self.loop = asyncio.get_running_loop()
        # By what good ones showed, for as long as these are the askers.
        self._askers = changes.askers
        self._shown: dict[bytes, Asker] = {}

    def find(self, head: Head) -> "BrokerHandler":
        """For whatever is asked: nothing else is served here."""
        return BrokerHandler(self, head)

    def asker(self, head: Head, headers: Mapping[bytes, bytes], secret: bytes) -> Asker | None:
        """The broker that has a secret: that of the path, else that of its Authorization."""
        if self._askers is not self.changes.askers:
            self._askers, self._shown = self.changes.askers, {}
        if secret:
            return self._askers.get(hashlib.sha256(secret).digest())
        authorization = headers.get(b"authorization", b"")
        known = self._shown.get(authorization)
        # Where a header is there twice they do not say which.
        if known is not None and len(headers) == len(head.headers):
            return known
        try:
            shown = bearer(head.headers).encode()
        except Unauthenticated:
            return None
        # It is looked up by its hash: see registry_service/administration/tokens/token_cache.py.
        asker = self._askers.get(hashlib.sha256(shown).digest())
        if asker is not None and len(self._shown) < MAX_SHOWN:
            self._shown[authorization] = asker
        return asker


class BrokerHandler:
    """Serves one request of a broker."""

    max_body_bytes = MAX_BODY_BYTES
    __slots__ = (
        "_asker",
        "_call",
        "_handlers",
        "_head",
        "_headers",
        "_operation",
        "_route",
        "_task",
    )

    def __init__(self, handlers: BrokerHandlers, head: Head) -> None:
        """With what `handlers` has."""
        self._handlers = handlers
        self._head = head
        self._headers = dict(head.headers)
        self._call: Call[Lookup, Seen] | None = None
        self._task: asyncio.Task[Verdict] | None = None

    def admit(self) -> direct_http.Reply | None:
        """Whether there is such an operation, and this a broker."""
        refused = self._refusal()
        return None if refused is None else _sent(refused)

    def ask(self, body: bytes | None, answer: Callable[[direct_http.Reply], None]) -> None:
        """Answers at once from memory, and else when the database has said what it knows."""
        asked = Asked(self._headers, self._head.query, body or b"")
        try:
            if body is None:
                raise Unreadable("the body is too long")
            reply = self._ask(asked, answer)
        except Unreadable:
            VERDICTS.note(self._route.dialect, None, UNREADABLE.reason)
            reply = _sent(self._route.operation.answer(asked, (UNREADABLE,)))
        except Exception as error:  # noqa: BLE001 - the last resort; what is unexpected is logged
            reply = _failed(error)
        if reply is not None:
            answer(reply)

    def leave(self) -> None:
        """The broker waits no more."""
        if self._call is not None:
            self._call.abandon()
        if self._task is not None:
            self._task.cancel()

    def _refusal(self) -> DialectReply | None:
        path = self._head.path
        operation, secret = path, b""
        route = ROUTES.get(operation)
        if route is None:
            if path == b"/healthz":
                return ALIVE
            if path == b"/readyz":
                return (
                    ALIVE
                    if self._handlers.changes.is_current(self._handlers.loop.time())
                    else NOT_READY
                )
            secret, _, rest = path.removeprefix(b"/").partition(b"/")
            operation = b"/" + rest
            route = ROUTES.get(operation)
        if route is None or path.startswith(b"//"):
            return NOT_FOUND
        if self._head.method not in (b"POST", b"GET"):
            return WRONG_METHOD
        asker = self._handlers.asker(self._head, self._headers, secret)
        if asker is None:
            address = self._head.client[0] if self._head.client else ""
            is_limited = self._handlers.wrong_secrets.note(address, self._handlers.loop.time())
            return TOO_MANY if is_limited else UNKNOWN_BROKER
        self._handlers.presence.used(asker.secret_id)
        self._route, self._operation, self._asker = route, operation, asker
        return None

    def _ask(
        self, asked: Asked, answer: Callable[[direct_http.Reply], None]
    ) -> direct_http.Reply | None:
        """What memory is sure of; None where it is not, and `answer` is called later."""
        handlers, asker, operation = self._handlers, self._asker, self._route.operation
        now, key = handlers.loop.time(), key_of(asker, self._operation, asked)
        given = handlers.reply_cache.again(asker, key, now)
        if given is not None:
            question, sent = given
            self._note(question, ALLOWED, now)
            return sent
        found = operation.read(asked)
        if not found:
            return _sent(operation.answer(asked, ()))
        if isinstance(found[0], Notice):
            handlers.presence.told(asker.broker_id, cast("Sequence[Notice]", found), now)
            return _sent(operation.answer(asked, ()))
        questions = cast("Sequence[Question]", found)
        at_once = [handlers.answering.at_once(asker, question, now) for question in questions]
        verdicts = [verdict for verdict in at_once if verdict is not None]
        if len(verdicts) == len(questions):
            sent = self._judged(asked, questions, verdicts, now)
            if len(questions) == 1:
                handlers.reply_cache.keep(key, questions[0], verdicts[0], sent, now)
            return sent
        self._look_up(asked, questions, answer, now)
        return None

    def _look_up(
        self,
        asked: Asked,
        questions: Sequence[Question],
        answer: Callable[[direct_http.Reply], None],
        now: float,
    ) -> None:
        """Without a task. The questions of one request are about one client: one lookup does."""
        answering, asker = self._handlers.answering, self._asker

        def seen(future: "asyncio.Future[Seen | MooringError]") -> None:
            if future.cancelled():
                return
            try:
                found = future.result()
                if isinstance(found, MooringError):
                    raise found
                at_once = [answering.judge(asker, question, found, now) for question in questions]
                verdicts = [verdict for verdict in at_once if verdict is not None]
                if len(verdicts) < len(questions):
                    self._prove(asked, questions[0], found, answer, now)
                    return
                sent = self._judged(asked, questions, verdicts, now)
            except Exception as error:  # noqa: BLE001 - the last resort; it is logged
                sent = _failed(error)
            answer(sent)

        self._call = answering.look_up(asker, questions[0], now)
        self._call.future.add_done_callback(seen)

    def _prove(
        self,
        asked: Asked,
        question: Question,
        seen: Seen,
        answer: Callable[[direct_http.Reply], None],
        now: float,
    ) -> None:
        """Only of a `Connect` is there a verdict that takes long."""

        def proved(task: "asyncio.Task[Verdict]") -> None:
            if task.cancelled():
                return
            try:
                sent = self._judged(asked, [question], [task.result()], now)
            except Exception as error:  # noqa: BLE001 - the last resort; it is logged
                sent = _failed(error)
            answer(sent)

        if not isinstance(question, Connect) or seen.subject is None:
            raise RuntimeError("there is no password to be proved")
        proving = self._handlers.answering.prove(self._asker, question, seen.subject, now)
        self._task = self._handlers.loop.create_task(proving)
        self._task.add_done_callback(proved)

    def _judged(
        self, asked: Asked, questions: Sequence[Question], verdicts: Sequence[Verdict], now: float
    ) -> direct_http.Reply:
        for question, verdict in zip(questions, verdicts, strict=True):
            self._note(question, verdict, now)
        return _sent(self._route.operation.answer(asked, [*map(outward, verdicts)]))

    def _note(self, question: Question, verdict: Verdict, now: float) -> None:
        if verdict.is_allowed and isinstance(question, Connect):
            self._handlers.presence.connected(self._asker.broker_id, question, now)
        VERDICTS.note(self._route.dialect, type(question), verdict.reason)


def _sent(reply: DialectReply) -> direct_http.Reply:
    """As HTTP has it."""
    headers = ((b"content-type", reply.content_type), *reply.headers)
    head = b"".join(b"%b: %b\r\n" % header for header in headers)
    return direct_http.Reply(reply.status, head, reply.body)


def _failed(error: Exception) -> direct_http.Reply:
    """For what is none of the client's fault: the broker decides what that means."""
    if not isinstance(error, MooringError):
        log.error("a broker's question failed unexpectedly", exc_info=error)
        return _sent(FAULT)
    wait = b"%d" % max(1, round(error.retry_after_s or 1))
    return _sent(DialectReply(503, TEXT, error.reason.encode() + b"\n", ((b"retry-after", wait),)))
