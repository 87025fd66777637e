"""Records refused attempts in the audit log.

A refusal has no transaction, and a client can repeat a refused call as often as it likes. So
attempts are counted in memory (`chassis.tally`), and a few lines at a time are written in the
background. No call waits for this or fails because of it, and very many attempts do not fill the
log.
"""

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from google.protobuf.message import DecodeError, Message
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis import log as logs
from chassis.audit import action_of, log_table, without_secrets
from chassis.database import writing
from chassis.database_failures import FailureKind, described, failure_kind_of
from chassis.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    InvalidInput,
    LostRace,
    MooringError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from chassis.identities import UNTRUSTED_SERVICE, caller
from chassis.tally import Attempts, Kind, Tally
from chassis.tickets import TICKET_INVALID, ticket

log = structlog.get_logger(__name__)

WRITE_EVERY_S = 1.0
# How many addresses a line names: those with the most attempts.
NAMED_ADDRESSES = 5

# The errors that are refusals. Any other error of the tree means that the change failed.
REFUSALS = (Forbidden, InvalidInput, NotFound, AlreadyExists, Conflict, LostRace)
# The beginnings of names of methods that change nothing. Only `Forbidden` is recorded for them, and
# for requests that are only validated.
READ = re.compile(r"(Get|List|Explain|Resolve|Authenticate)(?![a-z])")
# Fields of requests that name the subject of a change.
SUBJECTS = ("uuid", "id", "device_uuid")
MAX_TEXT = 255
PEER = re.compile(r"ipv[46]:(?P<host>.*):\d+")
UNWANTED = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Refusals:
    """The refused attempts of one service."""

    def __init__(self, engine: AsyncEngine, tally: Tally | None = None) -> None:
        """`engine` may insert into the audit log."""
        self._engine = engine
        self._tally = tally or Tally()

    def note(
        self, method: str, error: MooringError, decode: Callable[[], Any], peer: str = ""
    ) -> None:
        """Records that the current call was refused with `error`; ignores other errors.

        `method` is its full name, `decode` returns its message, and `peer` is the caller's address
        in gRPC's form.
        """
        if isinstance(error, Unauthenticated):
            self._note_stranger(method, error, decode, peer)
        elif logs.actor.get() and isinstance(error, REFUSALS):
            request = _decoded(decode)
            is_read = bool(READ.match(method.rpartition("/")[2]))
            is_read = is_read or getattr(request, "validate_only", False)
            if isinstance(error, Forbidden) or not is_read:
                self.note_attempt(action_of(method, request), _subject(request), error.reason)

    def note_attempt(self, action: str, subject: str, reason: str) -> None:
        """Records that this service or the gateway has refused `action` to the current actor."""
        kind = Kind(
            actor=plain(logs.actor.get()),
            actor_id=plain(logs.actor_id.get()),
            action=action,
            subject=plain(subject),
            refusal=reason,
        )
        self._tally.note(
            kind, time.monotonic(), request_id=plain(logs.request_id.get()), ticket=ticket.get()
        )

    def note_by(
        self,
        actor: str,
        actor_id: str,
        action: str,
        subject: str,
        reason: str,
        *,
        address: str,
    ) -> None:
        """Records that `action` was refused to a device; `actor` is empty if it is not known."""
        self._tally.note(
            Kind(plain(actor), plain(actor_id), action, plain(subject), reason),
            time.monotonic(),
            address=plain(address),
        )

    async def keep_written(self) -> None:
        """Writes due lines until it is cancelled."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self._write(self._tally.take(time.monotonic()))

    async def close(self) -> None:
        """Writes the remaining lines."""
        await self._write(self._tally.take_all())
        if lost := self._tally.take_all():
            count = sum(attempts.count for attempts in lost.values())
            log.error("refused attempts are not in the audit log", attempts=count)

    def _note_stranger(
        self, method: str, error: Unauthenticated, decode: Callable[[], Any], peer: str
    ) -> None:
        known = caller.get()
        subject = ""
        if known is not None and error.reason in (UNTRUSTED_SERVICE, TICKET_INVALID):
            # The caller is one of the services, but it may not call the method, or its ticket is
            # not valid.
            action, message, subject = action_of(method, _decoded(decode)), None, known.name
        elif error.reason == UNTRUSTED_SERVICE:
            # The caller is not one of the services, so the method is not recorded.
            action, message = "service.authenticate", None
        else:
            action, message = action_of(method), _decoded(decode)
        host = PEER.fullmatch(peer)
        address = getattr(message, "address", "") or (host["host"] if host else peer)
        self._tally.note(
            Kind("", "", action, subject, error.reason),
            time.monotonic(),
            request_id=plain(logs.request_id.get()),
            address=plain(address),
        )

    async def _write(self, due: dict[Kind, Attempts]) -> None:
        if not due:
            return
        lines = [_line(kind, attempts) for kind, attempts in due.items()]
        try:
            async with writing(self._engine) as connection:
                await connection.execute(sa.insert(log_table), lines)
        except (Unavailable, DBAPIError) as error:
            if isinstance(error, DBAPIError) and failure_kind_of(error) is FailureKind.DATA:
                await self._write_one_by_one(due, error)
                return
            self._tally.put_back(due)
            cause = described(error) if isinstance(error, DBAPIError) else {}
            log.warning("refused attempts are not in the audit log yet", lines=len(due), **cause)
        except asyncio.CancelledError:
            # It is not known whether the lines were written. They are written again, because a
            # duplicate is better than a missing line.
            self._tally.put_back(due)
            raise

    async def _write_one_by_one(self, due: dict[Kind, Attempts], error: DBAPIError) -> None:
        """Writes the lines one by one, so that only the line that the database refuses is lost."""
        if len(due) == 1:
            log.error("the audit log refuses a line", **described(error))
            return
        left = dict(due)
        try:
            for kind in due:
                await self._write({kind: left.pop(kind)})
        except asyncio.CancelledError:
            self._tally.put_back(left)
            raise


def _line(kind: Kind, attempts: Attempts) -> dict[str, Any]:
    def moment(at: float) -> str:
        ago = timedelta(seconds=time.monotonic() - at)
        return (datetime.now(UTC) - ago).isoformat(timespec="milliseconds")

    details: dict[str, Any] = {}
    if attempts.count > 1:
        details = {"first_at": moment(attempts.first_at), "last_at": moment(attempts.last_at)}
    if attempts.addresses:
        most = attempts.addresses.most_common(NAMED_ADDRESSES)
        details |= {"addresses": len(attempts.addresses), "most": dict(most)}
    return {
        "actor": kind.actor,
        "actor_id": kind.actor_id,
        "action": kind.action,
        "subject": kind.subject,
        "refusal": kind.refusal,
        "count": attempts.count,
        "details": details or None,
        "request_id": attempts.request_id,
        "ticket": attempts.ticket,
    }


def _decoded(decode: Callable[[], Any]) -> Message | None:
    try:
        message = decode()
    except DecodeError:
        return None
    return message if isinstance(message, Message) else None


def _subject(message: Message | None) -> str:
    return next((str(value) for name in SUBJECTS if (value := getattr(message, name, None))), "")


def plain(text: str) -> str:
    """A caller's text in a form that a line can hold, without anything in the form of a secret."""
    return UNWANTED.sub("?", without_secrets(text))[:MAX_TEXT]
