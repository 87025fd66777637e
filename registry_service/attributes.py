"""The attributes that a device sends when it registers. They are declared only here.

Each is a field of `mooring.registry.v1.Registration` and a column of `devices` with the same name.
This declaration, with the protos and tables, decides how an attribute is checked, which rows and
statements have it, and whether filters take it. docs/adding-a-field.md lists the other places.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, get_type_hints

from mooring.registry.v1 import jobs_pb2
from msgspec import Meta, Struct
from sqlalchemy.dialects import postgresql

from chassis.validation import check_range, check_text
from registry_service.tables import devices, expected_devices


class Attributes(Struct, frozen=True):
    """The attributes of one device. A text that the device does not send is empty."""

    # Degrees (WGS 84); both or neither.
    latitude: float | None
    longitude: float | None
    device_name: Annotated[str, Meta(min_length=1, max_length=255)]
    device_type: Annotated[str, Meta(min_length=1, max_length=64)]
    application_id: Annotated[str, Meta(max_length=128)] = ""
    mac_address: Annotated[str, Meta(max_length=128)] = ""
    os_version: Annotated[str, Meta(max_length=128)] = ""
    agent_version: Annotated[str, Meta(max_length=128)] = ""
    region: Annotated[str, Meta(max_length=64)] = ""


class Length(NamedTuple):
    """How many characters a text may have."""

    shortest: int
    longest: int


def _lengths() -> dict[str, Length]:
    hints = get_type_hints(Attributes, include_extras=True)
    limits = {
        name: meta
        for name, hint in hints.items()
        for meta in getattr(hint, "__metadata__", ())
        if isinstance(meta, Meta)
    }
    return {
        name: Length(meta.min_length or 0, meta.max_length or 0) for name, meta in limits.items()
    }


NAMES = Attributes.__struct_fields__
NOWHERE = (None, None)
# The attributes that are texts, in order, and their lengths.
TEXTS: Mapping[str, Length] = _lengths()
# The attributes that an operator may set for a device before it registers.
EXPECTED = tuple(name for name in NAMES if name in expected_devices.c)
# The attributes by which devices are filtered.
FILTERED = tuple(name for name in TEXTS if name in jobs_pb2.DeviceFilter.DESCRIPTOR.fields_by_name)

# The values of all attributes of a message or a struct, in order.
values_of = attrgetter(*NAMES)
_texts_of = attrgetter(*TEXTS)
_limits = [(name, *length) for name, length in TEXTS.items()]


def read_attributes(message: Any) -> tuple[Any, ...]:
    """The values of `Attributes` in order. Raises `InvalidInput`, which names the field."""
    texts = _texts_of(message)
    for text, (name, shortest, longest) in zip(texts, _limits, strict=True):
        # This is the check of `check_text`, in half the time for valid texts.
        if not shortest <= len(text) <= longest or not text.isprintable():
            check_text(name, text, shortest=shortest, longest=longest)
    place = place_of(message) if message.HasField("location") else NOWHERE
    return (*place, *texts)


def check_attribute(name: str, value: str, where: str = "") -> None:
    """Raises `InvalidInput` for a text that is too short or too long, or has control characters.
    The error names the field: `where` followed by `name`.
    """
    shortest, longest = TEXTS[name]
    check_text(f"{where}{name}", value, shortest=shortest, longest=longest)


def place_of(message: Any, where: str = "location.") -> tuple[float | None, float | None]:
    """The latitude and longitude of a message's `location`, checked. Raises `InvalidInput`."""
    if not message.HasField("location"):
        return None, None
    latitude, longitude = message.location.latitude, message.location.longitude
    check_range(f"{where}latitude", latitude, -90, 90)
    check_range(f"{where}longitude", longitude, -180, 180)
    return latitude, longitude


def listed(names: tuple[str, ...]) -> str:
    """The names of columns, separated by commas, for INSERT and SELECT."""
    return ", ".join(names)


def typed(names: tuple[str, ...]) -> str:
    """The names and types of columns, separated by commas, for `json_to_recordset`."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return ", ".join(f"{name} {devices.c[name].type.compile(dialect)}" for name in names)
