"""The seals of the audit log, and whether the newest ones verify: `/api/v1/audit-log/seals`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import get
from mooring.registry.v1 import audit_pb2
from msgspec import Meta, Struct

from chassis.times import moment_of
from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.examples import MOMENT


class SealFinding(Struct, kw_only=True, frozen=True):
    """A fault that the sealer found."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "fault": "LINES_CHANGED",
        "detail": "lines were changed",
        "seal_id": 12,
        "line_ids": [340],
    }

    fault: Annotated[str, Meta(description="Its kind, for programs.")]
    detail: Annotated[str, Meta(description="The same in words.")]
    seal_id: Annotated[int | None, Meta(description="Null if the fault is of no seal.")]
    line_ids: Annotated[list[int], Meta(description="The first few lines that it concerns.")]


class Seal(Struct, kw_only=True, frozen=True):
    """The last seal."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": 17,
        "sealed_at": MOMENT,
        "head": "17:" + "5f2c9a0e7d41b836" * 4,
    }

    id: int
    sealed_at: datetime | None
    head: Annotated[
        str,
        Meta(
            description="Its id and code. Kept on another machine, it shows to the command "
            "`verify --expect` whether the end of the chain was cut off."
        ),
    ]


class SealCheck(Struct, kw_only=True, frozen=True):
    """The last check, by the process that seals."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "checked_at": MOMENT,
        "first_seal_id": 1,
        "lines": 420,
        "is_sound": True,
        "findings": [],
    }

    checked_at: datetime | None
    first_seal_id: Annotated[
        int,
        Meta(
            description="The seals from this one to the last one were checked; 0 if there were "
            "none. Only the command `verify` checks all."
        ),
    ]
    lines: Annotated[int, Meta(description="The number of lines that these seals cover.")]
    is_sound: Annotated[bool, Meta(description="Whether nothing was found.")]
    findings: Annotated[
        list[SealFinding],
        Meta(description="Faults of these seals, and of earlier ones until they are mended."),
    ]


class AuditSeals(Struct, kw_only=True, frozen=True):
    """The end of the chain of seals, and whether it verifies."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"last_seal": Seal.EXAMPLE, "check": SealCheck.EXAMPLE}

    last_seal: Annotated[Seal | None, Meta(description="Null before the first seal.")]
    check: Annotated[SealCheck | None, Meta(description="Null before the first check.")]


@get(
    "/seals",
    access=Access.ADMIN,
    summary="See whether the audit log verifies",
    description="What the process that seals found when it last checked the newest seals, which it "
    "does every minute. The owner of the database could change this answer: proof is the command "
    "`python -m registry_service.audit.sealing verify`, with the key of the seals.",
)
async def get_audit_seals(request: CallerRequest) -> AuditSeals:
    caller = request.auth
    answer = await caller.ask_registry(caller.services.audit.GetSeals, audit_pb2.GetSealsRequest())
    return AuditSeals(
        last_seal=_seal(answer.last_seal) if answer.HasField("last_seal") else None,
        check=_check(answer.check) if answer.HasField("check") else None,
    )


def _seal(seal: audit_pb2.Seal) -> Seal:
    return Seal(id=seal.id, sealed_at=moment_of(seal, "sealed_at"), head=seal.head)


def _check(check: audit_pb2.SealCheck) -> SealCheck:
    return SealCheck(
        checked_at=moment_of(check, "checked_at"),
        first_seal_id=check.first_seal_id,
        lines=check.lines,
        is_sound=not check.findings,
        findings=[
            SealFinding(
                fault=finding.fault,
                detail=finding.detail,
                seal_id=finding.seal_id or None,
                line_ids=list(finding.line_ids),
            )
            for finding in check.findings
        ],
    )
