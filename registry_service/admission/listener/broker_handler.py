"""The HTTP side: a broker authenticates, asks in its dialect, and gets an answer in it. A path is
`/<dialect>/<operation>`. A broker that cannot send headers puts its secret in front:
`/<secret>/<dialect>/<operation>`. So this module never logs a path.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import structlog

from chassis.bearer import bearer
from chassis.direct_http import Head, Reply
from chassis.errors import MooringError, Unauthenticated
from chassis.http_handler import Awaited, RequestHandler
from registry_service.activity.timeline.events import Events
from registry_service.admission.decision import ALLOWED, verdict_for_broker
from registry_service.admission.listener.answering import Answering, Seen
from registry_service.admission.listener.dialects import DIALECTS
from registry_service.admission.listener.dialects.asked import (
    TEXT,
    Asked,
    DialectReply,
    Operation,
    Unreadable,
)
from registry_service.admission.listener.events import event_of
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

# A username, a password, a client id and a topic may have 64 KB each, and encoding them adds to it.
MAX_BODY_BYTES = 1024 * 1024
# How many headers with valid secrets are cached. Brokers have few secrets, and a secret can be
# written in several ways.
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
    503, TEXT, b"a fault of Mooring, which is in the log\n", ((b"retry-after", b"5"),)
)

METHODS = (b"POST", b"GET")
HEALTHZ, READYZ = b"/healthz", b"/readyz"
PROBES = (HEALTHZ, READYZ)


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
    """Serves brokers, with a new handler for each request."""

    def __init__(
        self,
        answering: Answering,
        changes: Changes,
        presence: Presence,
        reply_cache: ReplyCache,
        wrong_secrets: WrongSecrets,
        events: Events,
    ) -> None:
        """`changes` holds the brokers' secrets, `wrong_secrets` counts wrong ones, and `events`
        records which devices connect.
        """
        self.events = events
        self.wrong_secrets = wrong_secrets
        self.answering = answering
        self.changes = changes
        self.presence = presence
        self.reply_cache = reply_cache
        self.loop = asyncio.get_running_loop()
        # Brokers by their valid Authorization headers, until the secrets are read again.
        self._askers = changes.askers
        self._shown: dict[bytes, Asker] = {}

    def find(self, head: Head) -> "BrokerHandler":
        """Returns a handler for every request, because this server serves nothing else."""
        return BrokerHandler(self, head)

    def asker(self, head: Head, headers: Mapping[bytes, bytes], secret: bytes) -> Asker | None:
        """The broker with the secret of the path, or else of the Authorization header."""
        if self._askers is not self.changes.askers:
            self._askers, self._shown = self.changes.askers, {}
        if secret:
            return self._askers.get(hashlib.sha256(secret).digest())
        authorization = headers.get(b"authorization", b"")
        known = self._shown.get(authorization)
        # With two Authorization headers it is not clear which one applies.
        if known is not None and len(headers) == len(head.headers):
            return known
        try:
            shown = bearer(head.headers).encode()
        except Unauthenticated:
            return None
        # registry_service/administration/tokens/token_cache.py says why a lookup by hash is safe.
        asker = self._askers.get(hashlib.sha256(shown).digest())
        if asker is not None and len(self._shown) < MAX_SHOWN:
            self._shown[authorization] = asker
        return asker


class BrokerHandler(RequestHandler):
    """Serves one request of a broker."""

    max_body_bytes = MAX_BODY_BYTES
    __slots__ = (
        "_asked",
        "_asker",
        "_handlers",
        "_head",
        "_headers",
        "_operation",
        "_route",
    )

    def __init__(self, handlers: BrokerHandlers, head: Head) -> None:
        """Uses the objects of `handlers`."""
        self._handlers = handlers
        self._head = head
        self._headers = dict(head.headers)

    def admitted(self) -> Reply | None:
        """Checks that the operation exists and the client is a broker."""
        head, handlers = self._head, self._handlers
        secret, operation, route = b"", head.path, ROUTES.get(head.path)
        if route is None:
            if head.path in PROBES:
                return _sent(self._probe())
            # The secret comes first, and is not empty.
            secret, _, rest = head.path.removeprefix(b"/").partition(b"/")
            operation = b"/" + rest
            route = ROUTES.get(operation)
            if route is None or not secret:
                return _sent(NOT_FOUND)
        if head.method not in METHODS:
            return _sent(WRONG_METHOD)
        asker = handlers.asker(head, self._headers, secret)
        if asker is None:
            address = head.client[0] if head.client else ""
            is_limited = handlers.wrong_secrets.note(address, handlers.loop.time())
            return _sent(TOO_MANY if is_limited else UNKNOWN_BROKER)
        handlers.presence.used(asker.secret_id)
        self._route, self._operation, self._asker = route, operation, asker
        return None

    def begun(self, body: bytes | None) -> Reply | Awaited:
        """Answers from memory, or begins a lookup in the database."""
        self._asked = asked = Asked(self._headers, self._head.query, body or b"")
        if body is None:
            raise Unreadable("the body is too long")
        handlers, asker, operation = self._handlers, self._asker, self._route.operation
        now, key = handlers.loop.time(), key_of(asker, self._operation, asked)
        given = handlers.reply_cache.again(asker, key, now)
        if given is not None:
            if given.event is not None:
                # The cache has recorded the session.
                handlers.presence.accepted(asker.broker_id, given.question.username)
                handlers.events.add(given.event, time.time())
            VERDICTS.note(self._route.dialect, type(given.question), ALLOWED.reason)
            return given.reply
        found = operation.read(asked)
        if not found:
            return _sent(operation.answer(asked, ()))
        if isinstance(found[0], Notice):
            handlers.presence.reported(asker.broker_id, cast("Sequence[Notice]", found), now)
            return _sent(operation.answer(asked, ()))
        questions = cast("Sequence[Question]", found)
        at_once = [handlers.answering.at_once(asker, question, now) for question in questions]
        verdicts = [verdict for verdict in at_once if verdict is not None]
        if len(verdicts) == len(questions):
            sent = self._judged(questions, verdicts, now)
            if len(questions) == 1:
                handlers.reply_cache.keep(key, questions[0], verdicts[0], sent, now)
            return sent
        # All questions of one request are about the same client, so one lookup is enough.
        call = handlers.answering.look_up(asker, questions[0], now)
        return Awaited(call.future, partial(self._seen, questions, now), call.abandon)

    def failed(self, error: Exception) -> Reply:
        """A request that cannot be read is a denial. After any other error, the broker gets a 503,
        and decides what to do.
        """
        if isinstance(error, Unreadable):
            VERDICTS.note(self._route.dialect, None, UNREADABLE.reason)
            return _sent(self._route.operation.answer(self._asked, (UNREADABLE,)))
        if not isinstance(error, MooringError):
            log.error("a broker's question failed unexpectedly", exc_info=error)
            return _sent(FAULT)
        wait = b"%d" % max(1, round(error.retry_after_s or 1))
        text = error.reason.encode() + b"\n"
        return _sent(DialectReply(503, TEXT, text, ((b"retry-after", wait),)))

    def _probe(self) -> DialectReply:
        now = self._handlers.loop.time()
        is_ready = self._head.path == HEALTHZ or self._handlers.changes.is_current(now)
        return ALIVE if is_ready else NOT_READY

    def _seen(self, questions: Sequence[Question], now: float, found: Seen) -> Reply | Awaited:
        """Answers from the result of the lookup, or begins to compute a slow hash."""
        answering, asker = self._handlers.answering, self._asker
        at_once = [answering.judge(asker, question, found, now) for question in questions]
        verdicts = [verdict for verdict in at_once if verdict is not None]
        if len(verdicts) == len(questions):
            return self._judged(questions, verdicts, now)
        # Only the verdict on a `Connect` can take long.
        question = questions[0]
        if not isinstance(question, Connect) or found.subject is None:
            raise RuntimeError("the question contains no password")
        proving = answering.prove(asker, question, found.subject, now)
        task = self._handlers.loop.create_task(proving)
        return Awaited(task, lambda verdict: self._judged([question], [verdict], now), task.cancel)

    def _judged(
        self, questions: Sequence[Question], verdicts: Sequence[Verdict], now: float
    ) -> Reply:
        for question, verdict in zip(questions, verdicts, strict=True):
            self._note(question, verdict, now)
        return _sent(
            self._route.operation.answer(self._asked, [*map(verdict_for_broker, verdicts)])
        )

    def _note(self, question: Question, verdict: Verdict, now: float) -> None:
        broker_id = self._asker.broker_id
        if verdict.is_allowed and isinstance(question, Connect):
            self._handlers.presence.connected(broker_id, question, now)
        event = event_of(broker_id, question, verdict)
        if event is not None:
            self._handlers.events.add(event, time.time())
        VERDICTS.note(self._route.dialect, type(question), verdict.reason)


def _sent(reply: DialectReply) -> Reply:
    """The reply as an HTTP answer."""
    headers = ((b"content-type", reply.content_type), *reply.headers)
    head = b"".join(b"%b: %b\r\n" % header for header in headers)
    return Reply(reply.status, head, reply.body)
