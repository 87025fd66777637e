"""Certificates: `/api/v1/certificates`."""

import re
from typing import Annotated, Literal

from litestar import Response, Router, delete, get, patch, post
from litestar.params import FromQuery, JSONBody, QueryParameter
from mooring.broker.v1 import certificates_pb2

from chassis.errors import InvalidInput
from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.certificate_types import (
    KINDS,
    UNSPECIFIED,
    Certificate,
    CertificateChange,
    CertificatePage,
    CheckedCertificate,
    Kind,
    NewCertificate,
    certificate_json,
    checked_json,
    listed_json,
    new_certificate,
)
from gateway.administration.fields import PathId
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, searched
from gateway.administration.preconditions import IF_REVISION, IfRevision, tagged
from gateway.bodies import StrictJson

PERIOD = re.compile(r"(\d{1,4})([hdw])", re.ASCII)
SECONDS = {"h": 3_600, "d": 86_400, "w": 604_800}
ORDERS = {
    "id": certificates_pb2.CERTIFICATE_ORDER_UNSPECIFIED,
    "not_after": certificates_pb2.CERTIFICATE_ORDER_NOT_AFTER,
}
Order = Annotated[
    Literal["id", "not_after"],
    QueryParameter(description="not_after: certificates that expire first come first."),
]
IsUsed = Annotated[
    bool | None,
    QueryParameter(description="true: only certificates that brokers use; false: only the others."),
]
PartOfName = Annotated[
    str,
    QueryParameter(max_length=255, description="A text that the name or the subject contains."),
]


def _seconds(period: str | None) -> int | None:
    """The period of a query parameter in seconds. Raises `InvalidInput`."""
    if period is None:
        return None
    found = PERIOD.fullmatch(period)
    if found is None:
        raise InvalidInput("must be like 30d, 12h or 4w", field="expires_within")
    return int(found[1]) * SECONDS[found[2]]


def _answer(certificate: certificates_pb2.Certificate) -> Response[Certificate]:
    """The broker service's certificate as JSON, with its `ETag`."""
    return tagged(certificate_json(certificate), certificate.revision)


@post(
    "/",
    access=Access.OPERATOR,
    action="certificate.create",
    summary="Upload a CA bundle or a client certificate",
    description="A CA bundle contains CA certificates in any order; duplicates are removed. A "
    "client certificate comes first in its chain; its private key is stored encrypted.",
    dto=StrictJson[NewCertificate],
    reasons=("CERTIFICATE_EXISTS",),
)
async def create_certificate(
    request: CallerRequest, data: JSONBody[NewCertificate]
) -> Response[Certificate]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.certificates.CreateCertificate,
        certificates_pb2.CreateCertificateRequest(certificate=new_certificate(data, data.kind)),
    )
    return _answer(answer.certificate)


@post(
    "/check",
    access=Access.VIEWER,
    status_code=200,
    summary="Check what an upload would store",
    description="Reads the certificate as an upload does, with the same refusals. It stores "
    "nothing, the private key included.",
    dto=StrictJson[NewCertificate],
)
async def check_certificate(
    request: CallerRequest, data: JSONBody[NewCertificate]
) -> CheckedCertificate:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.certificates.CheckCertificate,
        certificates_pb2.CheckCertificateRequest(certificate=new_certificate(data, data.kind)),
    )
    return checked_json(answer)


@get(
    "/",
    access=Access.VIEWER,
    summary="List certificates",
)
async def list_certificates(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    kind: FromQuery[Kind | None] = None,
    expires_within: Annotated[
        str | None,
        QueryParameter(
            pattern="^[0-9]{1,4}[hdw]$",
            description="Only certificates that expire within this time or have expired: hours, "
            "days or weeks, like 30d.",
        ),
    ] = None,
    order: Order = "id",
    is_used: IsUsed = None,
    text: PartOfName = "",
    search: Annotated[
        str,
        searched(
            "whose name or subject contains this, or whose fingerprint begins with it (four"
            " characters or more, with or without colons)"
        ),
    ] = "",
) -> CertificatePage:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.certificates.ListCertificates,
        certificates_pb2.ListCertificatesRequest(
            page_size=limit,
            cursor=cursor,
            kind=KINDS[kind] if kind else UNSPECIFIED,
            expires_within_s=_seconds(expires_within),
            order=ORDERS[order],
            is_used=is_used,
            text=text,
            search=search,
        ),
    )
    return CertificatePage(
        [listed_json(certificate) for certificate in answer.certificates],
        answer.next_cursor or None,
    )


@get(
    "/{certificate_id:int}",
    access=Access.VIEWER,
    summary="Get a certificate",
    reasons=("CERTIFICATE_NOT_FOUND",),
)
async def get_certificate(request: CallerRequest, certificate_id: PathId) -> Response[Certificate]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.certificates.GetCertificate,
        certificates_pb2.GetCertificateRequest(id=certificate_id),
    )
    return _answer(answer.certificate)


@patch(
    "/{certificate_id:int}",
    access=Access.OPERATOR,
    action="certificate.rename",
    summary="Rename a certificate",
    dto=StrictJson[CertificateChange],
    dependencies=IF_REVISION,
    reasons=("CERTIFICATE_NOT_FOUND",),
)
async def rename_certificate(
    request: CallerRequest,
    certificate_id: PathId,
    data: JSONBody[CertificateChange],
    if_revision: IfRevision,
) -> Response[Certificate]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.certificates.RenameCertificate,
        certificates_pb2.RenameCertificateRequest(
            id=certificate_id, name=data.name, if_revision=if_revision
        ),
    )
    return _answer(answer.certificate)


@delete(
    "/{certificate_id:int}",
    access=Access.OPERATOR,
    action="certificate.delete",
    summary="Delete a certificate",
    description="Refused with CERTIFICATE_IN_USE while a broker, a revision of a broker or a "
    "rotation uses it; `usage` then counts them.",
    dependencies=IF_REVISION,
    reasons=("CERTIFICATE_NOT_FOUND", "CERTIFICATE_IN_USE"),
)
async def delete_certificate(
    request: CallerRequest, certificate_id: PathId, if_revision: IfRevision
) -> None:
    caller = request.auth
    await caller.ask_broker_service(
        caller.services.certificates.DeleteCertificate,
        certificates_pb2.DeleteCertificateRequest(id=certificate_id, if_revision=if_revision),
    )


ROUTES = Router(
    "/certificates",
    route_handlers=[
        create_certificate,
        check_certificate,
        list_certificates,
        get_certificate,
        rename_certificate,
        delete_certificate,
    ],
    tags=["certificates"],
)
