"""gRPC: processes and changes."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from mooring.registry.v1 import system_pb2 as pb
from mooring.registry.v1 import system_pb2_grpc

from chassis import pages
from chassis.errors import InvalidInput
from chassis.identities import Identity
from chassis.reporting import Report, Write
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import moment_of, timestamp_of
from chassis.trust import Access, Services, role
from chassis.validation import check_text
from registry_service.admission.reconciler.store import LEASE as ENFORCEMENT_LEASE
from registry_service.audit.sealing.store import LEASE as SEALING_LEASE
from registry_service.bulk.jobs.work_store import LEASE as JOBS_LEASE
from registry_service.system import attention, kinds
from registry_service.system.change_store import Changed, ChangeStore
from registry_service.system.cursor import Cursor
from registry_service.system.process_store import ProcessStore

GATEWAY = "gateway"
MAX_WAIT_MS = 1_000
# While a question waits, how often the database is asked.
POLL_S = 0.25
MAX_REPORT_BYTES = 32 * 1024
MAX_TEXT = 1_000
# The lease of each loop that has one.
LEASES = {"jobs": JOBS_LEASE, "enforcement": ENFORCEMENT_LEASE, "sealing": SEALING_LEASE}


class SystemServicer(system_pb2_grpc.SystemServiceServicer):
    """Answers from the database, so that every replica knows the same."""

    def __init__(self, processes: ProcessStore, changes: ChangeStore, write: Write) -> None:
        """`write` writes the reports of gateways."""
        self._processes = processes
        self._changes = changes
        self._write = write

    @allows(Access.VIEWER)
    async def ListProcesses(
        self, request: pb.ListProcessesRequest, context: Context
    ) -> pb.ListProcessesResponse:
        """In the order of their names and ids. Raises `InvalidInput`."""
        size, last = pages.page_size_of(request.page_size), _last(request.cursor)
        if request.state not in pb.ProcessState.values():
            raise InvalidInput("must be running, ended or lost", field="state")
        # They are few: of those that are gone, only some of each name are kept. Whether one has a
        # problem depends on the others of its name.
        found = await self._processes.processes()
        problems = attention.with_problem(found)
        wanted = [
            row
            for row in found
            if (last is None or (row.process, row.id) > last)
            and (not request.state or request.state == _state_of(row))
            and (not request.HasField("has_problem") or request.has_problem == (row.id in problems))
        ]
        page, next_cursor = pages.cut(
            wanted[: size + 1], size, lambda row: f"{row.process} {row.id}"
        )
        is_admin = role.get() >= Access.ADMIN
        return pb.ListProcessesResponse(
            processes=(
                _proto(row, has_problem=row.id in problems, with_configuration=is_admin)
                for row in page
            ),
            next_cursor=next_cursor,
        )

    @allows(Services(Identity.GATEWAY))
    async def ReportProcess(
        self, request: pb.ReportProcessRequest, context: Context
    ) -> pb.ReportProcessResponse:
        """Raises `InvalidInput`."""
        await self._write(_report_of(request))
        return pb.ReportProcessResponse()

    @allows(Services(Identity.GATEWAY))
    async def ChangesSince(
        self, request: pb.ChangesSinceRequest, context: Context
    ) -> pb.ChangesSinceResponse:
        """Raises `InvalidInput`."""
        if not 0 <= request.within_ms <= MAX_WAIT_MS:
            raise InvalidInput(f"must be 0 to {MAX_WAIT_MS}", field="within_ms")
        cursor = Cursor.parse(request.cursor)
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + request.within_ms / 1_000
        while True:
            changed = await self._changes.since(cursor)
            if request.cursor and cursor is None:
                # The cursor is of another version of Mooring.
                changed = Changed(changed.cursor, (), is_everything=True)
            is_late = loop.time() + POLL_S > ends_at
            if changed.kinds or changed.is_everything or not request.cursor or is_late:
                return pb.ChangesSinceResponse(
                    cursor=str(changed.cursor),
                    kinds=kinds.ALL if changed.is_everything else kinds.implied_by(changed.kinds),
                    is_everything=changed.is_everything,
                )
            await asyncio.sleep(POLL_S)


def _report_of(request: pb.ReportProcessRequest) -> Report:
    if request.ByteSize() > MAX_REPORT_BYTES:
        raise InvalidInput(f"a report has at most {MAX_REPORT_BYTES} bytes")
    check_text("host", request.host, shortest=1, longest=255)
    check_text("version", request.version, shortest=1, longest=100)
    if request.pid < 0:
        raise InvalidInput("must not be negative", field="pid")
    started_at = moment_of(request, "started_at")
    if started_at is None:
        raise InvalidInput("is required", field="started_at")
    return Report(
        id=_id_of(request.id, "id"),
        process=GATEWAY,
        host=request.host,
        pid=request.pid,
        version=request.version,
        started_at=started_at,
        has_ended=request.has_ended,
        is_ready=request.is_ready,
        checks=_texts("checks", request.checks),
        loops={},
        configuration=_texts("configuration", request.configuration),
    )


def _texts(field: str, given: Mapping[str, str]) -> dict[str, str]:
    for text in (*given.keys(), *given.values()):
        check_text(field, text, longest=MAX_TEXT)
    return dict(given)


def _id_of(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("must be a UUID", field=field) from None


def _last(cursor: str) -> tuple[str, UUID] | None:
    """The name and the id of the last process that the caller has seen. Raises `InvalidInput`."""
    key = pages.after(cursor, str)
    if key is None:
        return None
    process, _, text = key.partition(" ")
    return process, _id_of(text, "cursor")


def _state_of(row: sa.Row[Any]) -> "pb.ProcessState.ValueType":
    if row.ended_at is not None:
        return pb.PROCESS_STATE_ENDED
    return pb.PROCESS_STATE_LOST if row.is_lost else pb.PROCESS_STATE_RUNNING


def _proto(row: sa.Row[Any], *, has_problem: bool, with_configuration: bool) -> pb.Process:
    return pb.Process(
        id=str(row.id),
        process=row.process,
        host=row.host,
        pid=row.pid,
        version=row.version,
        started_at=timestamp_of(row.started_at),
        seen_at=timestamp_of(row.seen_at),
        ended_at=timestamp_of(row.ended_at),
        state=_state_of(row),
        is_ready=row.is_ready,
        checks=row.checks,
        loops=(_loop(name, loop, row) for name, loop in sorted(row.loops.items())),
        configuration=row.configuration if with_configuration else None,
        has_problem=has_problem,
    )


def _loop(name: str, stored: Mapping[str, Any], row: sa.Row[Any]) -> pb.ProcessLoop:
    lease = LEASES.get(name)
    return pb.ProcessLoop(
        name=name,
        problem=str(stored.get("problem", "")),
        succeeded_at=timestamp_of(attention.moment_in(stored.get("succeeded_at"))),
        failing_since=timestamp_of(attention.moment_in(stored.get("failing_since"))),
        holds_lease=None if lease is None else lease in row.leases,
        is_late=attention.is_late(row, stored),
    )
