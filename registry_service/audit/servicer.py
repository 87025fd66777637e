"""gRPC: the audit log, for administrators."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from mooring.registry.v1 import audit_pb2 as pb
from mooring.registry.v1 import audit_pb2_grpc

from chassis import pages
from chassis.errors import InvalidInput
from chassis.refusals import Refusals
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import moment_of, timestamp_of
from chassis.trust import Access, WithinFleets
from chassis.validation import check_text
from registry_service.audit.store import AuditStore

ACTION = re.compile(r"[a-z_]{1,60}\.[a-z_]{1,60}")
REASON = re.compile(r"[A-Z][A-Z_]{0,59}")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# A time in whole microseconds, and an id.
CURSOR = re.compile(r"(-?\d{1,18})\.(\d{1,18})", re.ASCII)


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Reads the log, and writes refusals. Each change writes its own line."""

    def __init__(self, store: AuditStore, refusals: Refusals) -> None:
        """`store` holds the lines; `refusals` writes lines for refusals."""
        self._store = store
        self._refusals = refusals

    @allows(Access.ADMIN)
    async def ListAuditLog(
        self, request: pb.ListAuditLogRequest, context: Context
    ) -> pb.ListAuditLogResponse:
        """Lists the newest line first. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        equal = {}
        for name in ("actor", "actor_id", "action", "subject"):
            if value := getattr(request, name):
                check_text(name, value, longest=255)
                equal[name] = value
        rows = await self._store.lines_before(
            _last(request.cursor),
            size + 1,
            equal=equal,
            since=moment_of(request, "since"),
            until=moment_of(request, "until"),
            refused_only=request.refused_only,
        )
        page, next_cursor = pages.cut(rows, size, _key)
        return pb.ListAuditLogResponse(lines=map(_proto, page), next_cursor=next_cursor)

    @allows(Access.ADMIN)
    async def GetSeals(self, request: pb.GetSealsRequest, context: Context) -> pb.GetSealsResponse:
        last, check = await self._store.seals()
        answer = pb.GetSealsResponse()
        if last is not None:
            answer.last_seal.CopyFrom(
                pb.Seal(
                    id=last.id,
                    sealed_at=timestamp_of(last.sealed_at),
                    head=f"{last.id}:{last.mac.hex()}",
                )
            )
        if check is not None:
            answer.check.CopyFrom(
                pb.SealCheck(
                    checked_at=timestamp_of(check.checked_at),
                    first_seal_id=check.first_seal_id,
                    lines=check.lines,
                    findings=[pb.SealFinding(**finding) for finding in check.findings],
                )
            )
        return answer

    # Any role may call this, because every actor can be refused. A call without a ticket has no
    # actor.
    @allows(WithinFleets(Access.VIEWER))
    async def NoteRefusal(
        self, request: pb.NoteRefusalRequest, context: Context
    ) -> pb.NoteRefusalResponse:
        """Raises `InvalidInput`."""
        if not ACTION.fullmatch(request.action):
            raise InvalidInput(
                "must be the kind of a resource, a full stop and a verb", field="action"
            )
        if not REASON.fullmatch(request.reason):
            raise InvalidInput("must be in capitals", field="reason")
        self._refusals.note_attempt(request.action, request.subject, request.reason)
        return pb.NoteRefusalResponse()


def _key(row: sa.Row[Any]) -> str:
    return f"{(row.at - EPOCH) // MICROSECOND}.{row.id}"


def _last(cursor: str) -> tuple[datetime, int] | None:
    """The time and the id of the last line that the caller has seen. Raises `InvalidInput`."""
    key = pages.after(cursor, str)
    if key is None:
        return None
    found = CURSOR.fullmatch(key)
    try:
        if found:
            return EPOCH + int(found[1]) * MICROSECOND, int(found[2])
    except OverflowError:
        pass
    raise InvalidInput("this cursor is invalid", field="cursor")


def _proto(row: sa.Row[Any]) -> pb.AuditLine:
    return pb.AuditLine(
        id=row.id,
        at=timestamp_of(row.at),
        actor=row.actor,
        actor_id=row.actor_id,
        action=row.action,
        subject=row.subject,
        refusal=row.refusal,
        count=row.attempts,
        before=row.before,
        after=row.after,
        details=row.details,
        request_id=row.request_id,
        session_role=row.session_role,
    )
