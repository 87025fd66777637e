"""The parts that imports of devices and of brokers share. The request is a file, and the answer has
a line for each row.

Importing is idempotent: a device or broker that exists is not changed. So after an interruption,
the client sends the whole file again.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
import structlog
from litestar.params import QueryParameter
from msgspec import UNSET, Meta, Struct, UnsetType

from chassis.errors import (
    DeadlineExceeded,
    LostRace,
    MooringError,
    Overloaded,
    Unavailable,
)
from gateway.administration.caller import Caller
from gateway.administration.certificate_types import CertificateWarning
from gateway.examples import UUID
from gateway.uploads import Line, Upload

log = structlog.get_logger(__name__)

# Errors that may be temporary. The call is repeated, which is safe.
TRIES = 5
PAUSE_S = 1.0
BATCH_S = 30.0
PASSING = (Unavailable, Overloaded, DeadlineExceeded, LostRace)

DryRun = Annotated[
    bool, QueryParameter(description="Gives the same answer without creating anything.")
]

Row = TypeVar("Row", bound=Struct)


class Imported(Struct, frozen=True):
    """A row that was imported; `created` is false if the device or broker existed."""

    is_created: bool
    warnings: list[CertificateWarning] = []


# The result of each row, or its error, in order.
Outcomes = Sequence[Imported | MooringError]
Ask = Callable[[Caller, Sequence[Row]], Awaitable[Outcomes]]


class ImportedRow(Struct, kw_only=True, frozen=True):
    """The result of a row."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"line": 1, "subject": UUID, "outcome": "created"}

    line: Annotated[int, Meta(description="The line of the file, from 1.")]
    subject: Annotated[str, Meta(description="The uuid or name; empty if the row cannot be read.")]
    outcome: Literal["created", "existing", "refused"]
    field: Annotated[str, Meta(description="The field that is wrong.")] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    warnings: (
        Annotated[
            list[CertificateWarning],
            Meta(description="Problems of a broker's certificates; absent if there are none."),
        ]
        | UnsetType
    ) = UNSET


class ImportEnd(Struct, kw_only=True, frozen=True):
    """The last line. If `complete` is false, import the file again."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "complete": True,
        "dry_run": False,
        "created": 1,
        "existing": 0,
        "refused": 0,
    }

    complete: bool
    dry_run: bool
    created: int
    existing: int
    refused: int
    reason: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET


async def imported(
    caller: Caller,
    upload: Upload[Row],
    *,
    ask: Ask[Row],
    is_dry_run: bool,
    size: int,
) -> AsyncIterator[bytes]:
    """The answer as NDJSON. Each call for `caller` imports up to `size` rows."""
    encoder = msgspec.json.Encoder()
    counts: Counter[str] = Counter()
    failure: MooringError | None = None
    try:
        async for batch in upload.batches(size):
            results = await _results(caller, batch, ask)
            counts.update(result.outcome for result in results)
            yield encoder.encode_lines(results)
    except MooringError as error:
        log.warning("an import was cut short", reason=error.reason)
        failure = error
    end = ImportEnd(
        complete=failure is None,
        dry_run=is_dry_run,
        created=counts["created"],
        existing=counts["existing"],
        refused=counts["refused"],
        reason=failure.reason if failure else UNSET,
        detail=failure.message if failure else UNSET,
    )
    yield encoder.encode(end) + b"\n"


async def _results(caller: Caller, batch: Sequence[Line[Row]], ask: Ask[Row]) -> list[ImportedRow]:
    rows = [line.row for line in batch if not isinstance(line.row, MooringError)]
    outcomes = iter(await _answered(caller, rows, ask) if rows else ())
    return [
        _result(
            line.number,
            line.subject,
            line.row if isinstance(line.row, MooringError) else next(outcomes),
        )
        for line in batch
    ]


async def _answered(caller: Caller, rows: Sequence[Row], ask: Ask[Row]) -> Outcomes:
    """The outcomes of one batch, if the caller's token is still valid. Raises the error of the last
    attempt.
    """
    for tries in range(1, TRIES + 1):
        try:
            patient = await caller.again(asyncio.get_running_loop().time() + BATCH_S)
            return await ask(patient, rows)
        except PASSING:
            if tries == TRIES:
                raise
            await asyncio.sleep(PAUSE_S)
    raise AssertionError("the last try returns or raises")


def _result(line: int, subject: str, outcome: Imported | MooringError) -> ImportedRow:
    if isinstance(outcome, MooringError):
        return ImportedRow(
            line=line,
            subject=subject,
            outcome="refused",
            field=outcome.field or UNSET,
            reason=outcome.reason,
            detail=outcome.message,
        )
    return ImportedRow(
        line=line,
        subject=subject,
        outcome="created" if outcome.is_created else "existing",
        warnings=outcome.warnings or UNSET,
    )
