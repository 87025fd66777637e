"""What passes between deciding and the database, as plain values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from registry_service.placements import Placement
from registry_service.provisioning import ProvisioningKey
from registry_service.registration.request import Registration


@dataclass(frozen=True, slots=True)
class Device:
    """A registered device, as far as answering it goes."""

    id: int
    uuid: str
    device_name: str
    device_type: str
    placement: Placement
    api_key_hash: bytes
    credential_key_id: int
    credential_salt: str
    provisioned_by_key_id: UUID
    is_active: bool
    reprovisioning_allowed: bool
    told_broker_ids: Sequence[int]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of a registration: its key, the device, the key's fleet."""

    key: ProvisioningKey | None
    device: Device | None
    # Where a device that the key makes is placed.
    key_placement: Placement | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is kept of a device's secrets."""

    salt: str
    key_id: int
    api_key_hash: bytes
    password_hash: str


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A row to insert."""

    registration: Registration
    key_id: UUID
    placement: Placement
    username: str
    credentials: Credentials
    told_broker_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Renewal:
    """New credentials for a row whose device is provisioned anew."""

    device_id: int
    key_id: UUID
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Telling:
    """What a device is about to be told, where that differs from its row."""

    device_id: int
    broker_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of a batch. A uuid in none of these was another replica's, or found no place."""

    created: dict[str, tuple[int, datetime]]  # by uuid: id, created_at
    renewed: frozenset[int]  # ids
