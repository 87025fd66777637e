"""Every error as an RFC 9457 problem document, and the table of HTTP statuses for gRPC codes."""

import math
import random
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import grpc
import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException, ValidationException
from litestar.types import ExceptionHandlersMap
from msgspec import UNSET, Struct, UnsetType

from chassis.direct_http import Reply
from chassis.errors import Internal, InvalidInput, LostRace, MooringError, NotFound
from chassis.log import request_id
from gateway.limits import RateLimited

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

# A test checks that this table has all codes of gRPC.
STATUS_OF_CODE: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 500,
    grpc.StatusCode.CANCELLED: 503,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 422,
    grpc.StatusCode.DEADLINE_EXCEEDED: 503,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 503,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 412,
    grpc.StatusCode.OUT_OF_RANGE: 422,
    # During an upgrade, the other service may have another version. Trying again helps.
    grpc.StatusCode.UNIMPLEMENTED: 503,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}

# Reasons that have their own HTTP status.
STATUS_OF_REASON: dict[str, int] = {RateLimited.reason: 429}

# The statuses with `Retry-After`. The time in it is random: up to MAX_SPREAD times the necessary
# time.
MAX_SPREAD = 1.5
RETRIED = frozenset({429, 503})

# Refusals by the gateway itself, before it asks a service.
HTTP_PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("MALFORMED_REQUEST", "the request cannot be read"),
    404: ("NO_SUCH_PATH", "there is nothing at this path"),
    405: ("METHOD_NOT_ALLOWED", "this path does not have that method"),
    408: ("REQUEST_TOO_SLOW", "the request did not arrive in time"),
    413: ("BODY_TOO_LARGE", "the body is larger than this path takes"),
    415: ("UNSUPPORTED_MEDIA_TYPE", "the body is not of a type that this path takes"),
    431: ("HEAD_TOO_LARGE", "the request line and the header fields are too long"),
}


class Problem(Struct, kw_only=True, frozen=True):
    """RFC 9457, section 3.1, and four members of our own."""

    type: str = "about:blank"
    title: str
    status: int
    # A text for people, which may change.
    detail: str
    # UPPER_SNAKE. Programs compare it, so it does not change.
    reason: str
    # The id of the request, which all its log lines have.
    request_id: str
    # The field that is wrong, as it is named in the request.
    field: str | UnsetType = UNSET
    # Counts of what blocks the request.
    usage: dict[str, int] | UnsetType = UNSET


def problem(
    status: int,
    reason: str,
    detail: str,
    *,
    field: str = "",
    retry_after_s: float = 0.0,
    usage: Mapping[str, int] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response[Problem]:
    """The answer with the problem; no cache may store it."""
    sent = {"Cache-Control": "no-store", **(headers or {})}
    if status == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = "Bearer"
    if status in RETRIED:
        # Calls of one batch are refused together, and must not be repeated together.
        soonest_s = max(1, math.ceil(retry_after_s))
        latest_s = max(1, math.ceil(retry_after_s * MAX_SPREAD))
        sent["Retry-After"] = str(random.randint(soonest_s, latest_s))  # noqa: S311
    content = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        reason=reason,
        request_id=request_id.get(),
        field=field or UNSET,
        usage=dict(usage) if usage else UNSET,
    )
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers=sent)


def rendered(response: Response[Problem]) -> Reply:
    """A problem as a `Reply`, for paths without the framework."""
    headers = {"content-type": MEDIA_TYPE, **response.headers}
    head = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
    return Reply(response.content.status, head.encode(), msgspec.json.encode(response.content))


def of_error(error: MooringError) -> Response[Problem]:
    """The problem for an error of a service."""
    return problem(
        STATUS_OF_REASON.get(error.reason) or STATUS_OF_CODE[error.code],
        error.reason,
        error.message,
        field=error.field,
        retry_after_s=error.retry_after_s,
        usage=error.usage,
    )


def of_device_error(error: MooringError) -> Response[Problem]:
    """`of_error` for devices.

    A lost race is 412 for people, who can read and decide again, and 503 for a device, which can
    only repeat its request.
    """
    if isinstance(error, LostRace):
        return problem(503, error.reason, error.message, retry_after_s=error.retry_after_s)
    return of_error(error)


def http_problem(
    status: int, *, detail: str = "", headers: Mapping[str, str] | None = None
) -> Response[Problem]:
    """A refusal by HTTP itself; `status` is one of `HTTP_PROBLEMS`."""
    reason, usual = HTTP_PROBLEMS[status]
    return problem(status, reason, detail or usual, headers=headers)


def unread(status: int) -> Reply:
    """The answer to a malformed or incomplete request, with its own request id."""
    own_id = b"%032x" % random.getrandbits(128)
    token = request_id.set(own_id.decode())
    try:
        answer = (
            http_problem(status)
            if status in HTTP_PROBLEMS
            else of_error(Internal("internal error"))
        )
    finally:
        request_id.reset(token)
    reply = rendered(answer)
    head = b"x-content-type-options: nosniff\r\nx-request-id: %b\r\n%b"
    return Reply(reply.status, head % (own_id, reply.head), reply.body)


def of_exception(error: Exception) -> Response[Problem]:
    """Logs an unexpected error with its traceback, and answers without details."""
    if isinstance(error, HTTPException):
        return http_problem(error.status_code if error.status_code in HTTP_PROBLEMS else 400)
    log.error("a request failed unexpectedly", exc_info=error)
    return of_error(Internal("internal error"))


def _of_ours(_: Request[Any, Any, Any], error: MooringError) -> Response[Problem]:
    return of_error(error)


def _of_http(_: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """A refusal by Litestar, without its text, which names Python types."""
    status = error.status_code if error.status_code in HTTP_PROBLEMS else 400
    allowed = set((error.headers or {}).get("allow", "").split(", ")) - {"", "OPTIONS"}
    if "GET" in allowed:
        allowed.add("HEAD")
    headers = (
        {"Allow": ", ".join(sorted(allowed))} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
    )
    return http_problem(status, headers=headers)


def _of_parameter(_: Request[Any, Any, Any], error: ValidationException) -> Response[Problem]:
    """An invalid parameter. In the path it is 404, because no resource has an invalid id."""
    fault = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    field = str(fault.get("key", ""))
    if fault.get("source") == "path":
        return of_error(NotFound("there is no such thing"))
    if field == "data":
        return problem(400, "MALFORMED_REQUEST", "a body is needed")
    return of_error(InvalidInput(str(fault.get("message", "is invalid")), field=field))


def _of_cut_body(_: Request[Any, Any, Any], __: InternalServerException) -> Response[Problem]:
    """The client has disconnected before it had sent the whole body, so the answer is not read."""
    return problem(400, "BODY_CUT_SHORT", "the body ended early")


def _of_anything(_: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    return of_exception(error)


HANDLERS: ExceptionHandlersMap = {
    MooringError: _of_ours,
    HTTPException: _of_http,
    ValidationException: _of_parameter,
    InternalServerException: _of_cut_body,
    Exception: _of_anything,
}
