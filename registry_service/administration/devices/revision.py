"""The revision of a device: a number that stands for what administrators can change of it."""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from mooring.registry.v1 import devices_pb2

from registry_service.tables import devices

# The id is in it too, so that a device that was made again has another revision.
CHANGED = (
    *("id", "latitude", "longitude"),
    *(name for name in devices_pb2.DeviceFields.DESCRIPTOR.fields_by_name if name in devices.c),
)
columns = [devices.c[name] for name in CHANGED]
# JSON numbers are exact in every language up to here.
BITS = 52


def revision_of(row: sa.Row[Any]) -> int:
    """The revision of a row with `columns`, from 1.

    It is made of the values: a counter would have to go up with changes by SQL too, and not with
    registrations and reports of presence.
    """
    values = json.dumps([getattr(row, name) for name in CHANGED])
    digest = hashlib.sha256(values.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - BITS)) or 1
