"""Converts times between protobuf and Python. All times are in UTC, and have a zone."""

from datetime import UTC, datetime
from typing import overload

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.errors import InvalidInput


@overload
def timestamp_of(moment: datetime) -> Timestamp: ...
@overload
def timestamp_of(moment: datetime | None) -> Timestamp | None: ...
def timestamp_of(moment: datetime | None) -> Timestamp | None:
    """A time as a protobuf message; None leaves a field of a message unset."""
    if moment is None:
        return None
    value = Timestamp()
    value.FromDatetime(moment)
    return value


def moment_of(message: Message, field: str, *, is_future: bool = False) -> datetime | None:
    """The time in `field`, or None if it is not set. Raises `InvalidInput` for a time that does not
    exist, and, if `is_future`, for a time in the past.
    """
    if not message.HasField(field):
        return None
    try:
        moment: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput("is not a time between the years 1 and 9999", field=field) from None
    if is_future and moment <= datetime.now(UTC):
        raise InvalidInput("has passed already", field=field)
    return moment
