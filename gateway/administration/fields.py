"""Fields that were named, cleared or left alone, between JSON and protobuf."""

from datetime import UTC, datetime
from typing import Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from litestar.params import PathParameter
from msgspec import UNSET, Meta, Struct
from msgspec.structs import fields

from chassis.errors import InvalidInput

MAX_INT32 = 2**31 - 1

Id = Annotated[int, Meta(ge=1, le=MAX_INT32)]
PathId = Annotated[int, PathParameter(ge=1, le=MAX_INT32)]
# RFC 3339 with its zone, as msgspec reads it.
Moment = Annotated[datetime, Meta(tz=True)]


def named(body: Struct) -> dict[str, Any]:
    """The fields that the body names, with None for null."""
    found = ((field.name, getattr(body, field.name)) for field in fields(body))
    return {name: value for name, value in found if value is not UNSET}


def mask(values: dict[str, Any]) -> FieldMask:
    """The names of `values`: one that is None is cleared by being named and not set."""
    return FieldMask(paths=list(values))


def present(values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` that a message is made with."""
    return {name: value for name, value in values.items() if value is not None}


def optional(message: Message, name: str) -> Any:
    """A field of the message, or None where it is not set."""
    return getattr(message, name) if message.HasField(name) else None


def moment_of(message: Message, name: str) -> datetime | None:
    """A timestamp field of the message in UTC, or None where it is not set."""
    return getattr(message, name).ToDatetime(tzinfo=UTC) if message.HasField(name) else None


def timestamp(field: str, moment: datetime | None) -> Timestamp | None:
    """Raises `InvalidInput` for a moment that falls out of the calendar in UTC."""
    if moment is None:
        return None
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput("is out of range", field=field) from None
    made = Timestamp()
    made.FromDatetime(utc)
    return made
