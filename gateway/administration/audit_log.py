"""The audit log: changes and refusals, and by which token. `/api/v1/audit-log`."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, ClassVar, cast

import msgspec
import structlog
from litestar import Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from litestar.response import Stream
from mooring.registry.v1 import audit_pb2
from msgspec import Meta, Struct

from chassis.errors import DeadlineExceeded, MooringError, Overloaded, Unavailable
from chassis.trust import Access
from gateway.administration import audit_seals
from gateway.administration.caller import Caller, CallerRequest
from gateway.administration.fields import moment_of, optional, timestamp_in
from gateway.administration.listing import DEFAULT_LIMIT, MAX_LIMIT, Cursor, Limit, Page
from gateway.documentation import LinesOf
from gateway.examples import MOMENT, REQUEST_ID, TOKEN_ID

log = structlog.get_logger(__name__)

NDJSON = "application/x-ndjson"
# The pause before an export tries again while the registry is unavailable.
TRIES = 5
PAUSE_S = 1.0
PAGE_S = 10.0
PASSING = (Unavailable, Overloaded, DeadlineExceeded)

Name = Annotated[str, QueryParameter(description="Only lines of the token with this name.")]
TokenId = Annotated[
    str, QueryParameter(description="Only lines of the token with this id: names are not unique.")
]
Action = Annotated[
    str,
    QueryParameter(
        description="An action such as `broker.update`, or a prefix that ends "
        "with a full stop: `broker.`."
    ),
]
Subject = Annotated[str, QueryParameter(description="The id or uuid of what it was done to.")]
Since = Annotated[
    str | None,
    QueryParameter(
        description="Only lines of this time or later: RFC 3339, with a zone.", format="date-time"
    ),
]
Until = Annotated[
    str | None,
    QueryParameter(
        description="Only lines before this time: RFC 3339, with a zone.", format="date-time"
    ),
]
RefusedOnly = Annotated[
    bool, QueryParameter(description="true: only refusals; false: changes and refusals.")
]


class AuditLine(Struct, kw_only=True, frozen=True):
    """A change or a refusal."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": 7,
        "at": MOMENT,
        "actor": "nightly backup",
        "actor_id": TOKEN_ID,
        "action": "broker.update",
        "subject": "1",
        "refusal": None,
        "count": 1,
        "before": {"keep_alive": 60},
        "after": {"keep_alive": 30},
        "details": None,
        "session_role": "mooring_broker",
        "request_id": REQUEST_ID,
    }

    id: int
    at: datetime | None
    actor: Annotated[str, Meta(description="The token's name; empty if no valid token was sent.")]
    actor_id: Annotated[str, Meta(description="The id of that token.")]
    action: Annotated[str, Meta(description="The kind of resource, a full stop and a verb.")]
    subject: Annotated[str, Meta(description="The id or uuid of what it was done to.")]
    refusal: Annotated[str | None, Meta(description="The reason of a refusal; null for a change.")]
    count: Annotated[
        int, Meta(description="The number of attempts or rotations that this line stands for.")
    ]
    before: Annotated[
        dict[str, Any] | None, Meta(description="The changed fields with their values before.")
    ]
    after: Annotated[
        dict[str, Any] | None, Meta(description="The changed fields with their values after.")
    ]
    details: Annotated[
        dict[str, Any] | None,
        Meta(
            description="For a line that stands for several refusals: the first and last time, "
            "and the addresses. For a line that stands for several rotations: `since`, the time "
            "of the line before, and `last_at`."
        ),
    ]
    request_id: str
    session_role: Annotated[
        str | None,
        Meta(
            description="The database role that wrote the line; null for old lines, which do "
            "not have it."
        ),
    ]


class AuditPage(Page[AuditLine], frozen=True):
    """Lines of the audit log, the newest first."""


class ExportEnd(Struct, frozen=True):
    """The last line of an export. An export that ends without it is incomplete."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"complete": True, "lines": 1}

    complete: bool
    lines: int


def _json(line: audit_pb2.AuditLine) -> AuditLine:
    return AuditLine(
        id=line.id,
        at=moment_of(line, "at"),
        actor=line.actor,
        actor_id=line.actor_id,
        action=line.action,
        subject=line.subject,
        refusal=line.refusal or None,
        count=line.count,
        before=_raw(line, "before"),
        after=_raw(line, "after"),
        details=_raw(line, "details"),
        request_id=line.request_id,
        session_role=optional(line, "session_role"),
    )


def _raw(line: audit_pb2.AuditLine, name: str) -> dict[str, Any] | None:
    """The field of the line, which is JSON already and which the encoder copies unchanged."""
    text = optional(line, name)
    return None if text is None else cast("dict[str, Any]", msgspec.Raw(text.encode()))


def question(
    actor: Name = "",
    actor_id: TokenId = "",
    action: Action = "",
    subject: Subject = "",
    since: Since = None,
    until: Until = None,
    refused_only: RefusedOnly = False,
) -> audit_pb2.ListAuditLogRequest:
    """The filter of the query parameters. Raises `InvalidInput`."""
    return audit_pb2.ListAuditLogRequest(
        actor=actor,
        actor_id=actor_id,
        action=action,
        subject=subject,
        since=timestamp_in("since", since),
        until=timestamp_in("until", until),
        refused_only=refused_only,
    )


Question = NamedDependency[audit_pb2.ListAuditLogRequest]


@get(
    "/",
    access=Access.ADMIN,
    summary="List lines of the audit log",
)
async def list_audit_log(
    request: CallerRequest, question: Question, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = ""
) -> AuditPage:
    caller = request.auth
    question.page_size, question.cursor = limit, cursor
    answer = await caller.ask_registry(caller.services.audit.ListAuditLog, question)
    return AuditPage([_json(line) for line in answer.lines], answer.next_cursor or None)


@get(
    "/export",
    access=Access.ADMIN,
    summary="Export the audit log",
    description="All lines that match as NDJSON, the newest first. The last line is "
    '`{"complete": true, "lines": 123}`: what ends without it was cut short.',
    media_type=NDJSON,
    lines=LinesOf((AuditLine, ExportEnd), (AuditLine.EXAMPLE, ExportEnd.EXAMPLE)),
)
async def export_audit_log(request: CallerRequest, question: Question) -> Stream:
    # The first page is read before the status is sent, so that a refusal is a problem document.
    question.page_size = MAX_LIMIT
    caller = request.auth
    first = await caller.ask_registry(caller.services.audit.ListAuditLog, question)
    return Stream(_exported(caller, question, first), media_type=NDJSON)


async def _exported(
    caller: Caller, question: audit_pb2.ListAuditLogRequest, page: audit_pb2.ListAuditLogResponse
) -> AsyncIterator[bytes]:
    """Yields the lines, a page at a time. The next page is read when the client has received the
    previous one.
    """
    lines = 0
    while True:
        lines += len(page.lines)
        if page.lines:
            yield msgspec.json.Encoder().encode_lines([_json(line) for line in page.lines])
        if not page.next_cursor:
            break
        question.cursor = page.next_cursor
        page = await _next_page(caller, question)
    yield msgspec.json.encode(ExportEnd(complete=True, lines=lines)) + b"\n"


async def _next_page(
    caller: Caller, question: audit_pb2.ListAuditLogRequest
) -> audit_pb2.ListAuditLogResponse:
    """The next page, if the caller's token is still valid. Raises the error of the last attempt;
    then the connection is closed without the last chunk.
    """
    for tries in range(1, TRIES + 1):
        deadline = asyncio.get_running_loop().time() + PAGE_S
        try:
            patient = await caller.again(deadline)
            return await patient.ask_registry(caller.services.audit.ListAuditLog, question)
        except MooringError as error:
            if tries == TRIES or not isinstance(error, PASSING):
                log.warning("an export was cut short", reason=error.reason)
                raise
            await asyncio.sleep(PAUSE_S)
    raise AssertionError("the last try returns or raises")


ROUTES = Router(
    "/audit-log",
    route_handlers=[list_audit_log, export_audit_log, audit_seals.get_audit_seals],
    dependencies={"question": Provide(question, sync_to_thread=False)},
    tags=["audit log"],
)
