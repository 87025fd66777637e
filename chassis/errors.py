"""The tree of errors that services return on purpose.

    MooringError
    ├── InvalidInput        well-formed, but wrong; names the field
    ├── Unauthenticated     the caller is not known
    ├── Forbidden           the caller is known, but may not do this
    ├── NotFound
    ├── AlreadyExists
    ├── Conflict            the present state does not allow the request
    ├── LostRace            another request was first; read again, decide again
    ├── Overloaded          a queue is full; try again later
    ├── Unavailable         something that is needed is down; try again later
    ├── DeadlineExceeded    the caller's deadline has passed
    ├── Unsupported         the service has no such method
    └── Internal            a fault of Mooring; its detail stays in the log

A service defines its own errors (`BrokerInUse`) as subclasses of these with a `reason`. Over gRPC
an error is sent as a status whose trailers hold `reason`, `field`, `retry-after-s` and `usage`, or,
for one item of a batch, as an `ItemError`. The calling service turns it into the same class of this
tree again.
"""

import re
from collections.abc import Mapping
from typing import ClassVar, TypeVar

import grpc
from grpc.aio import AioRpcError
from mooring.errors.v1 import errors_pb2

REASON = "mooring-reason"
FIELD = "mooring-field"
RETRY_AFTER_S = "mooring-retry-after-s"
USAGE = "mooring-usage"

COUNT = re.compile(r"(\w+)=(\d+)")


class MooringError(Exception):
    """Base of the tree. `reason` is UPPER_SNAKE. Programs compare it, so it does not change."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    reason: str = "UNKNOWN"
    retry_after_s: float = 0.0
    # Whether another service sent it as the outcome of one item of a batch.
    is_of_item: bool = False

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        reason: str | None = None,
        retry_after_s: float | None = None,
        usage: Mapping[str, int] | None = None,
    ) -> None:
        """`message` is for people, is sent to clients, and must not hold secrets. `usage` counts
        the things that block the request, by kind.
        """
        super().__init__(message)
        self.message = message
        self.field = field
        self.usage = dict(usage or {})
        if reason is not None:
            self.reason = reason
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


Kept = TypeVar("Kept", bound=MooringError)


def as_value(error: Kept) -> Kept:
    """`error` without its traceback and causes, to be stored as a result.

    A traceback holds the frames that it passed, and so the container of the results: a cycle, which
    only a garbage collection ends.
    """
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


class InvalidInput(MooringError):
    """The request is well-formed, but a value is wrong. `field` names the field."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_INPUT"


class Unauthenticated(MooringError):
    """The caller has not authenticated."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class Forbidden(MooringError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "FORBIDDEN"


class NotFound(MooringError):
    """The named thing does not exist."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExists(MooringError):
    """The named thing exists already."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class Conflict(MooringError):
    """The present state does not allow the request; repeating it alone does not help."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "CONFLICT"


class LostRace(MooringError):
    """Another request has changed the resource first: read it again, and decide again."""

    code = grpc.StatusCode.ABORTED
    reason = "LOST_RACE"


class Overloaded(MooringError):
    """A queue is full; nothing was done."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"
    retry_after_s = 1.0


class Unavailable(MooringError):
    """Something that is needed is down."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"
    retry_after_s = 2.0


class DeadlineExceeded(MooringError):
    """The deadline has passed; it is not known whether the work was done."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"
    retry_after_s = 1.0


class Unsupported(MooringError):
    """The service does not have the method, because it has another version."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "UNSUPPORTED"


class Internal(MooringError):
    """A fault of Mooring."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


# The class for each gRPC code. A test checks that all codes are here.
CLASS_OF_CODE: dict[grpc.StatusCode, type[MooringError]] = {
    grpc.StatusCode.OK: Internal,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.UNKNOWN: Internal,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ABORTED: LostRace,
    grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: Internal,
}
CODE_OF_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def trailers_of(error: MooringError) -> tuple[tuple[str, str], ...]:
    """The trailing metadata of a call that fails with `error`."""
    trailers = [(REASON, error.reason)]
    if error.field:
        trailers.append((FIELD, error.field))
    if error.retry_after_s:
        trailers.append((RETRY_AFTER_S, f"{error.retry_after_s:.3f}"))
    if error.usage:
        trailers.append((USAGE, " ".join(f"{name}={count}" for name, count in error.usage.items())))
    return tuple(trailers)


def from_rpc(error: AioRpcError) -> MooringError:
    """The error of a failed call to another service. A status without a reason comes from gRPC
    itself and not from a service. Its text may name addresses, so it is not passed on.
    """
    trailers = {key: str(value) for key, value in error.trailing_metadata() or ()}
    kind = CLASS_OF_CODE[error.code()]
    if REASON not in trailers:
        return kind("the service did not answer")
    return kind(
        error.details() or "",
        field=trailers.get(FIELD, ""),
        reason=trailers[REASON],
        retry_after_s=float(trailers.get(RETRY_AFTER_S, 0)),
        usage=counted(trailers.get(USAGE, "")),
    )


def counted(text: str) -> dict[str, int]:
    """The counts in a text such as `devices=3 fleets=1`, by name."""
    return {name: int(count) for name, count in COUNT.findall(text)}


def to_item(error: MooringError) -> errors_pb2.ItemError:
    """The error as a message, for one item of a batch."""
    return errors_pb2.ItemError(
        code=error.code.value[0],
        reason=error.reason,
        message=error.message,
        field=error.field,
        retry_after_s=error.retry_after_s,
    )


def from_item(item: errors_pb2.ItemError) -> MooringError:
    """The error of one item of a batch, from the message of another service."""
    kind = CLASS_OF_CODE[CODE_OF_NUMBER.get(item.code, grpc.StatusCode.UNKNOWN)]
    error = kind(
        item.message,
        field=item.field,
        reason=item.reason,
        retry_after_s=item.retry_after_s,
    )
    error.is_of_item = True
    return error
