"""The revision of a device: a number that stands for what administrators can change of it."""

from typing import Any

import sqlalchemy as sa
from mooring.registry.v1 import devices_pb2

from chassis.revisions import revision_of_values
from registry_service.tables import devices

# The id is in it too, so that a device that was made again has another revision.
CHANGED = (
    *("id", "latitude", "longitude"),
    *(name for name in devices_pb2.DeviceFields.DESCRIPTOR.fields_by_name if name in devices.c),
)
columns = [devices.c[name] for name in CHANGED]


def revision_of(row: sa.Row[Any]) -> int:
    """The revision of a row with `columns`, from 1.

    It is made of the values: a counter would have to go up with changes by SQL too, and not with
    registrations and reports of presence.
    """
    return revision_of_values([getattr(row, name) for name in CHANGED])
