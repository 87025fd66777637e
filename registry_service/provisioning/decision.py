"""Decides whether a device may register with a provisioning key, over plain values."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from uuid import UUID

from chassis.hosts import unwrapped
from registry_service.errors import (
    DeviceDisabled,
    DeviceNotExpected,
    DeviceTaken,
    DeviceTypeNotAllowed,
    FleetDisabled,
    NetworkNotAllowed,
    ProvisioningKeyExpired,
    ProvisioningKeyRevoked,
    ProvisioningKeyUnknown,
    ProvisioningKeyUsedUp,
    UuidNotAllowed,
    UuidReserved,
)


@dataclass(frozen=True, slots=True)
class Restrictions:
    """The restrictions of a key. A device must meet all restrictions that are not None."""

    device_types: frozenset[str] | None = None
    # In CIDR notation.
    source_networks: tuple[str, ...] | None = None
    uuids: frozenset[str] | None = None
    uuid_prefix: str | None = None
    # Whether only devices that are expected in the key's fleet can register.
    only_expected: bool = False


@dataclass(frozen=True, slots=True)
class ProvisioningKey:
    """A key as it was read."""

    id: UUID
    fleet_id: str
    is_active: bool = True
    expires_at: datetime | None = None
    max_devices: int | None = None
    devices_provisioned: int = 0
    default_broker_id: int | None = None
    # Goes up with every change, except when the key is used.
    revision: int = 1
    # None for a key without restrictions, as most are.
    restrictions: Restrictions | None = None
    fleet_is_active: bool = True
    # The prefix that the uuids of its fleet's devices must have; None allows any uuid.
    fleet_uuid_prefix: str | None = None
    default_pool_id: int | None = None

    @property
    def places_left(self) -> int | None:
        """How many more devices may register with the key; None without a limit."""
        if self.max_devices is None:
            return None
        return self.max_devices - self.devices_provisioned


@dataclass(frozen=True, slots=True)
class Registered:
    """What the decision needs to know about a registered device."""

    # None for an imported device that has not registered yet.
    provisioned_by_key_id: UUID | None
    fleet_id: str
    # Whether the device and its fleet are enabled.
    is_active: bool = True
    reprovisioning_allowed: bool = False


class Decision(Enum):
    """The decision about a registration."""

    CREATE = "create"  # a new device: counts against the key's limit
    CONFIRM = "confirm"  # the same device again: the same identity, not counted
    # The same uuid, provisioned anew as an administrator allowed, or for the first time since it
    # was imported: not counted.
    RENEW = "renew"


def decide(
    key: ProvisioningKey | None,
    device: Registered | None,
    *,
    uuid: str,
    device_type: str,
    source_address: str,
    expected_in: str | None,
    is_same_api_key: bool,
    now: datetime,
    reserved_for: str | None = None,
) -> Decision:
    """The decision about a registration with `key`; `device` is the registered device with its
    uuid, if there is one. `source_address`: the client's address, empty if it is not known.
    `expected_in`: the fleet in which an operator expects the uuid. `reserved_for`: the fleet whose
    prefix the uuid begins with. `is_same_api_key`: whether `device` registered with the same device
    API key. Raises `ProvisioningKeyUnknown`, `NetworkNotAllowed`, `ProvisioningKeyRevoked`,
    `ProvisioningKeyExpired`, `ProvisioningKeyUsedUp`, `UuidNotAllowed`, `DeviceTypeNotAllowed`,
    `DeviceNotExpected`, `UuidReserved`, `FleetDisabled`, `DeviceTaken` or `DeviceDisabled`. The key
    is checked first: a client without a key for this device does not learn which uuids exist.
    """
    if key is None:
        raise ProvisioningKeyUnknown("this provisioning key is not known")
    restrictions = key.restrictions
    if restrictions is not None:
        _check_network(restrictions, source_address)
    if device is None or device.provisioned_by_key_id != key.id:
        admit(key, now)
    elif not key.is_active:
        raise ProvisioningKeyRevoked("this provisioning key was revoked")
    if device is not None and is_same_api_key:
        # The device has authenticated with its API key, so the key's restrictions do not apply.
        if not key.fleet_is_active and device.fleet_id != key.fleet_id:
            raise FleetDisabled("this provisioning key's fleet is disabled")
        if not device.is_active:
            raise DeviceDisabled("this device is disabled")
        return Decision.CONFIRM
    is_imported = device is not None and device.provisioned_by_key_id is None
    if restrictions is not None:
        # Operators have named imported devices, as they have named expected ones.
        named_in = device.fleet_id if device is not None and is_imported else expected_in
        is_expected = named_in == key.fleet_id
        _check_device(restrictions, uuid, device_type, is_expected=is_expected)
    if device is None:
        if expected_in is not None and expected_in != key.fleet_id:
            raise UuidReserved("this uuid is reserved")
        prefix = key.fleet_uuid_prefix
        if prefix is not None and not uuid.startswith(prefix):
            raise UuidNotAllowed(
                "uuids of this provisioning key's fleet must begin with its prefix"
            )
        if reserved_for is not None and reserved_for != key.fleet_id:
            raise UuidReserved("this uuid is reserved")
        if not key.fleet_is_active:
            raise FleetDisabled("this provisioning key's fleet is disabled")
        return Decision.CREATE
    is_allowed = device.reprovisioning_allowed or is_imported
    if not is_allowed or device.fleet_id != key.fleet_id:
        raise DeviceTaken("this uuid is registered with another device API key", field="uuid")
    if not device.is_active:
        raise DeviceDisabled("this device is disabled")
    return Decision.RENEW


def _check_network(restrictions: Restrictions, source_address: str) -> None:
    networks = restrictions.source_networks
    if networks is not None and not is_within(source_address, networks):
        raise NetworkNotAllowed("this provisioning key cannot be used from this network")


def _check_device(
    restrictions: Restrictions, uuid: str, device_type: str, *, is_expected: bool
) -> None:
    if (restrictions.uuids is not None and uuid not in restrictions.uuids) or (
        restrictions.uuid_prefix is not None and not uuid.startswith(restrictions.uuid_prefix)
    ):
        raise UuidNotAllowed("this provisioning key does not allow this uuid")
    if restrictions.device_types is not None and device_type not in restrictions.device_types:
        raise DeviceTypeNotAllowed(
            "devices of this type cannot register with this provisioning key"
        )
    if restrictions.only_expected and not is_expected:
        raise DeviceNotExpected("only expected devices can register with this provisioning key")


# Devices of a factory have few addresses.
@lru_cache(maxsize=4_096)
def is_within(address: str, networks: tuple[str, ...]) -> bool:
    """Whether an IP address is in one of `networks` (CIDR); False for text that is no address. An
    IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) counts as its IPv4 address.
    """
    try:
        found = unwrapped(ip_address(address))
    except ValueError:
        return False
    return any(found in network for network in _parsed(networks))


@lru_cache(maxsize=1_024)
def _parsed(networks: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, networks))


def admit(key: ProvisioningKey, now: datetime) -> None:
    """Checks that one more device may register with the key; raises what `decide` raises."""
    if not key.is_active:
        raise ProvisioningKeyRevoked("this provisioning key was revoked")
    if key.expires_at is not None and key.expires_at <= now:
        raise ProvisioningKeyExpired("this provisioning key has expired")
    if key.places_left is not None and key.places_left <= 0:
        raise ProvisioningKeyUsedUp(
            "the maximum number of devices has registered with this provisioning key"
        )


def grant(key: ProvisioningKey, wanted: int, now: datetime) -> int:
    """How many of `wanted` new devices may register with the key now, within its limit."""
    try:
        admit(key, now)
    except (ProvisioningKeyRevoked, ProvisioningKeyExpired, ProvisioningKeyUsedUp):
        return 0
    return wanted if key.places_left is None else min(wanted, key.places_left)
