"""Whether a provisioning key lets a device in: the decision, over plain values."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from uuid import UUID

from registry_service.errors import (
    DeviceDisabled,
    DeviceTaken,
    ProvisioningKeyExpired,
    ProvisioningKeyRevoked,
    ProvisioningKeyUnknown,
    ProvisioningKeyUsedUp,
)


@dataclass(frozen=True, slots=True)
class ProvisioningKey:
    """A key as the database had it."""

    id: UUID
    fleet_id: str
    is_active: bool = True
    expires_at: datetime | None = None
    max_devices: int | None = None
    devices_provisioned: int = 0
    default_broker_id: int | None = None

    @property
    def places_left(self) -> int | None:
        """How many devices it may still make; None without a limit."""
        if self.max_devices is None:
            return None
        return self.max_devices - self.devices_provisioned


@dataclass(frozen=True, slots=True)
class Registered:
    """What matters here of a device that is registered already."""

    provisioned_by_key_id: UUID
    fleet_id: str
    is_active: bool = True
    reprovisioning_allowed: bool = False


class Decision(Enum):
    """What to do with a registration."""

    CREATE = "create"  # a new device: takes a place of the key
    CONFIRM = "confirm"  # the same device again: the same identity, nothing is taken
    RENEW = "renew"  # the same uuid, provisioned anew as an administrator allowed: nothing is taken


def decide(
    key: ProvisioningKey | None,
    device: Registered | None,
    *,
    is_same_api_key: bool,
    now: datetime,
) -> Decision:
    """What to do with a registration that shows `key` for `device`, if that is registered.

    `is_same_api_key`: whether the device API key is the one it registered with. Raises
    `ProvisioningKeyUnknown`, `ProvisioningKeyRevoked`, `ProvisioningKeyExpired`,
    `ProvisioningKeyUsedUp`, `DeviceTaken` or `DeviceDisabled`. The key is judged first: who has
    none does not learn which uuids exist.
    """
    if key is None:
        raise ProvisioningKeyUnknown("this provisioning key is not known")
    if device is None:
        admit(key, now)
        return Decision.CREATE
    if device.provisioned_by_key_id == key.id:
        if not key.is_active:
            raise ProvisioningKeyRevoked("this provisioning key was revoked")
    else:
        admit(key, now)
    may_renew = device.reprovisioning_allowed and device.fleet_id == key.fleet_id
    if not is_same_api_key and not may_renew:
        raise DeviceTaken("this uuid is registered with another device API key", field="uuid")
    if not device.is_active:
        raise DeviceDisabled("this device is disabled")
    return Decision.CONFIRM if is_same_api_key else Decision.RENEW


def admit(key: ProvisioningKey, now: datetime) -> None:
    """Whether the key may make one more device; raises what `decide` raises."""
    if not key.is_active:
        raise ProvisioningKeyRevoked("this provisioning key was revoked")
    if key.expires_at is not None and key.expires_at <= now:
        raise ProvisioningKeyExpired("this provisioning key has expired")
    if key.places_left is not None and key.places_left <= 0:
        raise ProvisioningKeyUsedUp("this provisioning key has made all the devices it may")


def grant(key: ProvisioningKey, wanted: int, now: datetime) -> int:
    """How many of `wanted` new devices the key may make now; never more than its limit leaves."""
    try:
        admit(key, now)
    except (ProvisioningKeyRevoked, ProvisioningKeyExpired, ProvisioningKeyUsedUp):
        return 0
    return wanted if key.places_left is None else min(wanted, key.places_left)
