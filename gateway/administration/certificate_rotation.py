"""Replacing a certificate: below `/api/v1/certificates/{id}/rotation`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from litestar import Router, delete, get, post
from litestar.params import FromQuery, JSONBody
from mooring.broker.v1 import rotations_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from chassis.errors import InvalidInput
from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.certificate_types import (
    NEXT_CA_PEM,
    Certificate,
    CertificateText,
    CertificateWarning,
    certificate_json,
    new_certificate,
    warnings_json,
)
from gateway.administration.fields import Id, PathId, moment_of
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page
from gateway.bodies import StrictJson
from gateway.examples import MOMENT, UUID

ToldGeneration = Literal["old", "both", "new"]
GENERATIONS: dict[str, rotations_pb2.ToldGeneration.ValueType] = {
    "old": rotations_pb2.TOLD_GENERATION_OLD,
    "both": rotations_pb2.TOLD_GENERATION_BOTH,
    "new": rotations_pb2.TOLD_GENERATION_NEW,
}


class NewRotation(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The replacement of a certificate: either `replacement` or `replacement_id`."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "replacement": {"pem": NEXT_CA_PEM},
        "threshold_percent": 99,
    }

    replacement: (
        Annotated[
            CertificateText,
            Meta(
                description="A certificate of the same kind. If it was "
                "uploaded before, that one is used."
            ),
        ]
        | UnsetType
    ) = UNSET
    replacement_id: (
        Annotated[Id, Meta(description="The id of an uploaded certificate.")] | UnsetType
    ) = UNSET
    threshold_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="The share of the devices that must be notified of the replacement "
            "before the cutover.",
        ),
    ] = 99


class ToldCounts(Struct, kw_only=True, frozen=True):
    """The numbers of active devices by the certificates in their last answer."""

    old: Annotated[int, Meta(description="Devices that were not notified of the new certificate.")]
    both: int
    new: Annotated[
        int, Meta(description="Devices that were notified of the new certificate alone.")
    ]


class Rotation(Struct, kw_only=True, frozen=True):
    """A rotation of a certificate that is in progress."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "certificate_id": 1,
        "replacement_id": 2,
        "began_at": MOMENT,
        "threshold_percent": 99,
        "broker_ids": [1],
        "told": {"old": 12, "both": 4_988, "new": 0},
        "too_early": None,
        "warnings": [],
    }

    certificate_id: int
    replacement_id: int
    began_at: datetime | None
    threshold_percent: int
    broker_ids: Annotated[list[int], Meta(description="The brokers that use the certificate.")]
    told: Annotated[
        ToldCounts | None,
        Meta(description="Null for a client certificate: devices get one at a time."),
    ]
    too_early: Annotated[
        str | None, Meta(description="Why a cutover would be refused now; null if it would not.")
    ]
    warnings: Annotated[
        list[CertificateWarning],
        Meta(description="Problems of the replacement now; empty if there are none."),
    ]


class RotationDevices(Page[str], frozen=True):
    """Uuids of devices, in the order in which they registered."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"items": [UUID], "next_cursor": None}


class Cutover(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The options of a cutover."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"force": False}

    force: Annotated[bool, Meta(description="Cuts over below the threshold too.")] = False


def _json(rotation: rotations_pb2.Rotation) -> Rotation:
    told = rotation.told
    return Rotation(
        certificate_id=rotation.certificate_id,
        replacement_id=rotation.replacement_id,
        began_at=moment_of(rotation, "began_at"),
        threshold_percent=rotation.threshold_percent,
        broker_ids=list(rotation.broker_ids),
        told=ToldCounts(old=told.old, both=told.both, new=told.new)
        if rotation.HasField("told")
        else None,
        too_early=rotation.too_early or None,
        warnings=warnings_json(rotation.warnings),
    )


@post(
    "/{certificate_id:int}/rotation",
    access=Access.OPERATOR,
    action="rotation.stage",
    summary="Start replacing a certificate",
    description="From now on, devices of the brokers that use a CA bundle get it and its "
    "replacement as one bundle, the old one first. A client certificate is served alone "
    "until the cutover.",
    dto=StrictJson[NewRotation],
    reasons=("CERTIFICATE_NOT_FOUND", "CERTIFICATE_UNKNOWN", "ROTATION_UNDER_WAY"),
)
async def stage_rotation(
    request: CallerRequest, certificate_id: PathId, data: JSONBody[NewRotation]
) -> Rotation:
    if (data.replacement is UNSET) == (data.replacement_id is UNSET):
        raise InvalidInput("is needed, or replacement_id, and not both", field="replacement")
    question = rotations_pb2.StageRotationRequest(
        id=certificate_id, threshold_percent=data.threshold_percent
    )
    if data.replacement_id is not UNSET:
        question.replacement_id = data.replacement_id
    if data.replacement is not UNSET:
        question.certificate.CopyFrom(new_certificate(data.replacement))
    caller = request.auth
    answer = await caller.ask_broker_service(caller.services.rotations.StageRotation, question)
    return _json(answer.rotation)


@get(
    "/{certificate_id:int}/rotation",
    access=Access.VIEWER,
    summary="Get the progress of a rotation",
    reasons=("CERTIFICATE_NOT_FOUND", "ROTATION_NOT_FOUND"),
)
async def get_rotation(request: CallerRequest, certificate_id: PathId) -> Rotation:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.rotations.GetRotation,
        rotations_pb2.GetRotationRequest(id=certificate_id),
    )
    return _json(answer.rotation)


@get(
    "/{certificate_id:int}/rotation/devices",
    access=Access.VIEWER,
    summary="List the devices that were notified of the old certificate, of both or of the new one",
    reasons=("CERTIFICATE_NOT_FOUND", "ROTATION_NOT_FOUND"),
)
async def list_rotation_devices(
    request: CallerRequest,
    certificate_id: PathId,
    told: FromQuery[ToldGeneration],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
) -> RotationDevices:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.rotations.ListRotationDevices,
        rotations_pb2.ListRotationDevicesRequest(
            id=certificate_id, told=GENERATIONS[told], page_size=limit, cursor=cursor
        ),
    )
    return RotationDevices(list(answer.device_uuids), answer.next_cursor or None)


@post(
    "/{certificate_id:int}/rotation/cutover",
    access=Access.OPERATOR,
    action="rotation.cut_over",
    summary="Cut over to the replacement",
    description="All brokers that used the certificate use its replacement alone. Refused with "
    "ROTATION_TOO_EARLY below the threshold; `usage` then counts the devices.",
    status_code=200,
    dto=StrictJson[Cutover],
    reasons=("CERTIFICATE_NOT_FOUND", "ROTATION_NOT_FOUND", "ROTATION_TOO_EARLY"),
)
async def cut_over_rotation(
    request: CallerRequest, certificate_id: PathId, data: JSONBody[Cutover]
) -> Certificate:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.rotations.CutOverRotation,
        rotations_pb2.CutOverRotationRequest(id=certificate_id, force=data.force),
    )
    return certificate_json(answer.certificate)


@delete(
    "/{certificate_id:int}/rotation",
    access=Access.OPERATOR,
    action="rotation.cancel",
    summary="Cancel a rotation",
    description="Brokers use the certificate alone again. The replacement is not deleted.",
    reasons=("CERTIFICATE_NOT_FOUND", "ROTATION_NOT_FOUND"),
)
async def cancel_rotation(request: CallerRequest, certificate_id: PathId) -> None:
    caller = request.auth
    await caller.ask_broker_service(
        caller.services.rotations.CancelRotation,
        rotations_pb2.CancelRotationRequest(id=certificate_id),
    )


ROUTES = Router(
    "/certificates",
    route_handlers=[
        stage_rotation,
        get_rotation,
        list_rotation_devices,
        cut_over_rotation,
        cancel_rotation,
    ],
    tags=["certificates"],
)
