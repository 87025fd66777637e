"""What can be wrong about devices, fleets, keys and tokens, as facts."""

from chassis.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Internal,
    InvalidInput,
    LostRace,
    NotFound,
    Unauthenticated,
    Unavailable,
)


class ProvisioningKeyUnknown(Unauthenticated):
    """No key has this hash."""

    reason = "PROVISIONING_KEY_UNKNOWN"


class ProvisioningKeyRevoked(Unauthenticated):
    """It was taken back, also from the devices it made."""

    reason = "PROVISIONING_KEY_REVOKED"


class ProvisioningKeyExpired(Forbidden):
    """It makes no more devices; those it made, it still serves."""

    reason = "PROVISIONING_KEY_EXPIRED"


class ProvisioningKeyUsedUp(Forbidden):
    """It has made as many devices as it may; those it made, it still serves."""

    reason = "PROVISIONING_KEY_USED_UP"


class NetworkNotAllowed(Forbidden):
    """The key is not for use from where it was shown."""

    reason = "NETWORK_NOT_ALLOWED"


class DeviceTypeNotAllowed(Forbidden):
    """The key makes devices of other types."""

    reason = "DEVICE_TYPE_NOT_ALLOWED"


class UuidNotAllowed(Forbidden):
    """The key makes devices with other uuids."""

    reason = "UUID_NOT_ALLOWED"


class DeviceNotExpected(Forbidden):
    """The key makes only devices that an operator has named, and this is none."""

    reason = "DEVICE_NOT_EXPECTED"


class UuidReserved(Forbidden):
    """An operator expects this device in a fleet that is not the key's."""

    reason = "UUID_RESERVED"


class FleetDisabled(Forbidden):
    """An operator has disabled the fleet that the device would belong to."""

    reason = "FLEET_DISABLED"


class DeviceTaken(Conflict):
    """The uuid is registered with another device API key."""

    reason = "DEVICE_TAKEN"


class DeviceDisabled(Forbidden):
    """An operator has disabled the device, or its fleet."""

    reason = "DEVICE_DISABLED"


class DeviceUnauthenticated(Unauthenticated):
    """No such device, or not its API key: the caller is not told which."""

    reason = "DEVICE_UNAUTHENTICATED"


class DeviceNotFound(NotFound):
    """No device has this uuid."""

    reason = "DEVICE_NOT_FOUND"


class BrokerNotFound(NotFound):
    """No broker has this id."""

    reason = "BROKER_NOT_FOUND"


class BrokerInactive(Conflict):
    """It does not serve, so nothing is moved or rolled out to it."""

    reason = "BROKER_INACTIVE"


class BrokerNotAllowed(Conflict):
    """The fleet is restricted, and not to this broker."""

    reason = "BROKER_NOT_ALLOWED"


class BrokerUnknown(InvalidInput):
    """There is no broker with the id that is named."""

    reason = "BROKER_UNKNOWN"


class FleetUnknown(InvalidInput):
    """There is no fleet with the id that is named."""

    reason = "FLEET_UNKNOWN"


class FleetNotFound(NotFound):
    """No fleet has this id."""

    reason = "FLEET_NOT_FOUND"


class RolloutNotFound(NotFound):
    """The fleet has no rollout under way."""

    reason = "ROLLOUT_NOT_FOUND"


class FleetIdTaken(AlreadyExists):
    """Another fleet has this id."""

    reason = "FLEET_ID_TAKEN"


class FleetInUse(Conflict):
    """It has devices, expected devices or keys."""

    reason = "FLEET_IN_USE"


class ProvisioningKeyNotFound(NotFound):
    """No provisioning key has this id."""

    reason = "PROVISIONING_KEY_NOT_FOUND"


class MaxDevicesBelowUse(Conflict):
    """The key has made more devices than it is to be allowed."""

    reason = "MAX_DEVICES_BELOW_USE"


class ExpectedDeviceNotFound(NotFound):
    """No device with this uuid is expected."""

    reason = "EXPECTED_DEVICE_NOT_FOUND"


class DeviceExpected(AlreadyExists):
    """A device with this uuid is expected already."""

    reason = "DEVICE_EXPECTED"


class DeviceRegistered(AlreadyExists):
    """A device with this uuid has registered already."""

    reason = "DEVICE_REGISTERED"


class UsernameTaken(AlreadyExists):
    """Another device that was imported has this MQTT username."""

    reason = "USERNAME_TAKEN"


class UsernameReserved(InvalidInput):
    """The MQTT username is what another device would be called by us."""

    reason = "USERNAME_RESERVED"


class TokenUnknown(Unauthenticated):
    """No API token like this, or no longer."""

    reason = "TOKEN_UNKNOWN"


class TokenNotFound(NotFound):
    """No API token has this id."""

    reason = "TOKEN_NOT_FOUND"


class LastAdminToken(Conflict):
    """Without it nobody could make tokens any more."""

    reason = "LAST_ADMIN_TOKEN"


class BrokerUndecided(Unavailable):
    """Which broker cannot be found out now, and a stopgap would override what was configured."""

    reason = "BROKER_UNDECIDED"


class NoBrokerForFleet(Unavailable):
    """The fleet is restricted to brokers of which none can serve."""

    reason = "NO_BROKER_FOR_FLEET"
    retry_after_s = 30.0


class ServerKeyMissing(Internal):
    """A row names a server key that the ring does not hold.

    It was not restored whole, or another service has made one the active key that is unknown here.
    """

    reason = "SERVER_KEY_MISSING"


class JobNotFound(NotFound):
    """No job has this id."""

    reason = "JOB_NOT_FOUND"


class JobStateForbids(Conflict):
    """What is asked does not follow the state that the job is in."""

    reason = "JOB_STATE_FORBIDS"


class JobHasNoList(Conflict):
    """The list of its devices was not uploaded, or not to its end."""

    reason = "JOB_HAS_NO_LIST"


class JobHasFilter(Conflict):
    """It is for all devices that a filter matches, and takes no list."""

    reason = "JOB_HAS_FILTER"


class LeaseLost(LostRace):
    """Another process has taken over what only one may do."""

    reason = "LEASE_LOST"
