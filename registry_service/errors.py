"""What can be wrong about devices, fleets, keys, tokens and accounts, as facts."""

from chassis.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Internal,
    InvalidInput,
    LostRace,
    NotFound,
    Overloaded,
    Unauthenticated,
    Unavailable,
)

GUESSED = "there were too many attempts with wrong device API keys"


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
    """The key, or the fleet, has devices with other uuids."""

    reason = "UUID_NOT_ALLOWED"


class DeviceNotExpected(Forbidden):
    """The key makes only devices that an operator has named, and this is none."""

    reason = "DEVICE_NOT_EXPECTED"


class UuidReserved(Forbidden):
    """The uuid is another fleet's, by its beginning, or an operator expects the device there."""

    reason = "UUID_RESERVED"


class FleetDisabled(Forbidden):
    """An operator has disabled the fleet that the device would belong to."""

    reason = "FLEET_DISABLED"


class AskedTooOften(Overloaded):
    """Wrong device API keys were shown too often, or a password was replaced too often."""

    reason = "RATE_LIMITED"


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
    """A device that was imported, or a service account, has this MQTT username."""

    reason = "USERNAME_TAKEN"


class UsernameReserved(InvalidInput):
    """The MQTT username is what a device is called by us, or would be."""

    reason = "USERNAME_RESERVED"


class TokenUnknown(Unauthenticated):
    """No API token like this, or no longer."""

    reason = "TOKEN_UNKNOWN"


class TokenNotFound(NotFound):
    """No API token has this id."""

    reason = "TOKEN_NOT_FOUND"


class TokenUsedUp(Forbidden):
    """The token has named as many devices as it may."""

    reason = "TOKEN_USED_UP"


class UuidPrefixTaken(Conflict):
    """Another fleet's prefix begins with this one, or this one with it."""

    reason = "UUID_PREFIX_TAKEN"


class LastAdminToken(Conflict):
    """Without it nobody could make tokens any more."""

    reason = "LAST_ADMIN_TOKEN"


class BrokerSecretNotFound(NotFound):
    """The broker has no secret with this id."""

    reason = "BROKER_SECRET_NOT_FOUND"


class TooManyBrokerSecrets(Conflict):
    """There are more than replacing one takes."""

    reason = "TOO_MANY_BROKER_SECRETS"


class ServiceAccountNotFound(NotFound):
    """No service account has this id."""

    reason = "SERVICE_ACCOUNT_NOT_FOUND"


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


class TooManyRemovals(Conflict):
    """So many of a broker's clients would be removed at once that it must be a mistake."""

    reason = "TOO_MANY_REMOVALS"


class TooManyClients(Conflict):
    """More than a broker of this kind can be kept in step with."""

    reason = "TOO_MANY_CLIENTS"


class ControlUnreachable(Unavailable):
    """There is no connection to the broker that is to be driven, or it broke."""

    reason = "CONTROL_UNREACHABLE"


class ControlNotAllowed(Forbidden):
    """The broker does not let us in, or not to where it takes commands."""

    reason = "CONTROL_NOT_ALLOWED"


class ControlSilent(DeadlineExceeded):
    """The broker has not answered in time: whether it did what it was told is not known."""

    reason = "CONTROL_SILENT"


class ControlUnreadable(Conflict):
    """What the broker answers is not what it is documented to answer."""

    reason = "CONTROL_UNREADABLE"


class CommandsRefused(Conflict):
    """The broker has not done some of what it was told, and has done the rest."""

    reason = "COMMANDS_REFUSED"


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
