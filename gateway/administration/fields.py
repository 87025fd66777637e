"""Fields that are set, cleared or left out, between JSON and protobuf."""

from datetime import UTC, datetime
from typing import Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from litestar.params import PathParameter
from msgspec import UNSET, Meta, Struct, ValidationError, convert
from msgspec.structs import fields

from chassis.errors import InvalidInput

MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1

Id = Annotated[int, Meta(ge=1, le=MAX_INT32)]
PathId = Annotated[int, PathParameter(ge=1, le=MAX_INT32)]
# A time in RFC 3339 with its zone, as msgspec reads it.
Moment = Annotated[datetime, Meta(tz=True)]


def named(body: Struct) -> dict[str, Any]:
    """The fields that the body contains, with None for null."""
    found = ((field.name, getattr(body, field.name)) for field in fields(body))
    return {name: value for name, value in found if value is not UNSET}


def mask(values: dict[str, Any]) -> FieldMask:
    """The names of `values`. A field that is in the mask and not set is cleared."""
    return FieldMask(paths=list(values))


def present(values: dict[str, Any]) -> dict[str, Any]:
    """The items of `values` that are not None, for the constructor of a message."""
    return {name: value for name, value in values.items() if value is not None}


def optional(message: Message, name: str) -> Any:
    """A field of the message, or None if it is not set."""
    return getattr(message, name) if message.HasField(name) else None


def moment_of(message: Message, name: str) -> datetime | None:
    """A timestamp field of the message in UTC, or None if it is not set."""
    return getattr(message, name).ToDatetime(tzinfo=UTC) if message.HasField(name) else None


def timestamp(field: str, moment: datetime | None) -> Timestamp | None:
    """The time as a message. Raises `InvalidInput` if its year in UTC is not between 1 and 9999."""
    if moment is None:
        return None
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput("is out of range", field=field) from None
    made = Timestamp()
    made.FromDatetime(utc)
    return made


def timestamp_in(field: str, text: str | None) -> Timestamp | None:
    """The time in a query parameter. Raises `InvalidInput`."""
    if text is None:
        return None
    try:
        return timestamp(field, convert(text, Moment))
    except ValidationError:
        raise InvalidInput("must be a time with a zone, as in RFC 3339", field=field) from None
