"""The result of the last check of the newest seals, in the database, for people."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import reading, writing
from chassis.errors import MooringError
from registry_service.audit.sealing.chain import Fault, Finding
from registry_service.audit.sealing.checking import Check, check
from registry_service.audit.sealing.store import reader
from registry_service.tables import audit_checks

log = structlog.get_logger(__name__)

EVERY_S = 60.0


class Checker:
    """Checks once in `EVERY_S`, in the process that seals."""

    def __init__(self, engine: AsyncEngine, keys: Mapping[int, bytes], archived: int = 0) -> None:
        """`engine` connects as mooring_sealer. Lines of the seals up to `archived` are not checked,
        because they may have been moved.
        """
        self._engine = engine
        self._keys = keys
        self._archived = archived
        self._due_at = 0.0

    async def turn(self, now: float) -> None:
        """Checks if it is due at `now`. A failure is only logged, so that sealing goes on."""
        if now < self._due_at:
            return
        self._due_at = now + EVERY_S
        try:
            found = await self.check()
        except (MooringError, DBAPIError) as error:
            log.warning("the seals could not be checked", error=type(error).__name__)
            return
        for finding in found.findings:
            log.error(
                "the audit log does not verify",
                fault=finding.fault.value,
                seal=finding.seal_id,
                lines=list(finding.lines),
            )

    async def check(self) -> Check:
        """Checks now, and stores the result. Raises `MooringError`, `DBAPIError`."""
        before = await self._last()
        async with reader(self._engine) as chain:
            found = await check(chain, self._keys, before, self._archived)
        values = {
            "checked_at": sa.func.clock_timestamp(),
            "first_seal_id": found.first_seal_id,
            "last_seal_id": found.last_seal_id,
            "last_mac": found.last_mac,
            "lines": found.lines,
            "findings": [_stored(finding) for finding in found.findings],
        }
        statement = insert(audit_checks).values(values)
        async with writing(self._engine) as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["is_only"], set_=values)
            )
        return found

    async def _last(self) -> Check | None:
        async with reading(self._engine) as connection:
            row = (await connection.execute(sa.select(audit_checks))).one_or_none()
        if row is None:
            return None
        return Check(
            row.first_seal_id,
            row.last_seal_id,
            row.last_mac,
            row.lines,
            [_finding(stored) for stored in row.findings],
        )


def _stored(finding: Finding) -> dict[str, Any]:
    return {
        "fault": finding.fault.name,
        "detail": finding.fault.value,
        "seal_id": finding.seal_id,
        "line_ids": list(finding.lines),
    }


def _finding(stored: Mapping[str, Any]) -> Finding:
    return Finding(Fault[stored["fault"]], stored["seal_id"], stored["line_ids"])
