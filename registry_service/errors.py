"""The errors of the registry service."""

from chassis.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Internal,
    InvalidInput,
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
    """The key was revoked. Devices that registered with it are refused too."""

    reason = "PROVISIONING_KEY_REVOKED"


class ProvisioningKeyExpired(Forbidden):
    """The key has expired: no new device can register; registered ones are still served."""

    reason = "PROVISIONING_KEY_EXPIRED"


class ProvisioningKeyUsedUp(Forbidden):
    """The maximum number of devices has registered; registered ones are still served."""

    reason = "PROVISIONING_KEY_USED_UP"


class NetworkNotAllowed(Forbidden):
    """The key cannot be used from the network of the request."""

    reason = "NETWORK_NOT_ALLOWED"


class DeviceTypeNotAllowed(Forbidden):
    """Devices of this type cannot register with the key."""

    reason = "DEVICE_TYPE_NOT_ALLOWED"


class UuidNotAllowed(Forbidden):
    """The key or its fleet does not allow this uuid."""

    reason = "UUID_NOT_ALLOWED"


class DeviceNotExpected(Forbidden):
    """Only expected devices can register with the key, and this one is not expected."""

    reason = "DEVICE_NOT_EXPECTED"


class UuidReserved(Forbidden):
    """The uuid has the prefix of another fleet, or is expected in another fleet."""

    reason = "UUID_RESERVED"


class FleetDisabled(Forbidden):
    """An operator has disabled the fleet that the device would belong to."""

    reason = "FLEET_DISABLED"


class AskedTooOften(Overloaded):
    """There were too many attempts with wrong device API keys, or too many rotations."""

    reason = "RATE_LIMITED"


class DeviceTaken(Conflict):
    """The uuid is registered with another device API key."""

    reason = "DEVICE_TAKEN"


class DeviceDisabled(Forbidden):
    """An operator has disabled the device, or its fleet."""

    reason = "DEVICE_DISABLED"


class DeviceUnauthenticated(Unauthenticated):
    """There is no such device, or this is not its API key; the error does not reveal which."""

    reason = "DEVICE_UNAUTHENTICATED"


class DeviceNotFound(NotFound):
    """No device has this uuid."""

    reason = "DEVICE_NOT_FOUND"


class BrokerNotFound(NotFound):
    """No broker has this id."""

    reason = "BROKER_NOT_FOUND"


class PoolNotFound(NotFound):
    """No pool has this id."""

    reason = "POOL_NOT_FOUND"


class BrokerInactive(Conflict):
    """The broker is not active, so devices cannot be moved to it."""

    reason = "BROKER_INACTIVE"


class BrokerNotAllowed(Conflict):
    """The fleet is restricted to other brokers."""

    reason = "BROKER_NOT_ALLOWED"


class BrokerUnknown(InvalidInput):
    """There is no broker with the given id."""

    reason = "BROKER_UNKNOWN"


class PoolUnknown(InvalidInput):
    """There is no pool with the given id."""

    reason = "POOL_UNKNOWN"


class FleetUnknown(InvalidInput):
    """There is no fleet with the given id."""

    reason = "FLEET_UNKNOWN"


class FleetNotFound(NotFound):
    """No fleet has this id."""

    reason = "FLEET_NOT_FOUND"


class RolloutNotFound(NotFound):
    """The fleet has no rollout in progress."""

    reason = "ROLLOUT_NOT_FOUND"


class FleetIdTaken(AlreadyExists):
    """Another fleet has this id."""

    reason = "FLEET_ID_TAKEN"


class FleetInUse(Conflict):
    """The fleet has devices, expected devices or keys."""

    reason = "FLEET_IN_USE"


class ProvisioningKeyNotFound(NotFound):
    """No provisioning key has this id."""

    reason = "PROVISIONING_KEY_NOT_FOUND"


class MaxDevicesBelowUse(Conflict):
    """More devices have registered with the key than the new limit."""

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
    """The MQTT username is reserved for devices."""

    reason = "USERNAME_RESERVED"


class TokenUnknown(Unauthenticated):
    """The API token is not valid."""

    reason = "TOKEN_UNKNOWN"


class SessionEnded(Unauthenticated):
    """There is no such console session, or it has ended, or its token is not valid any more."""

    reason = "SESSION_ENDED"


class SignInCodeUnknown(Unauthenticated):
    """There is no such sign-in code; each is valid once, for a few minutes."""

    reason = "SIGN_IN_CODE_UNKNOWN"


class TokenNotFound(NotFound):
    """No API token has this id."""

    reason = "TOKEN_NOT_FOUND"


class TokenUsedUp(Forbidden):
    """The token has added its maximum number of devices."""

    reason = "TOKEN_USED_UP"


class UuidPrefixTaken(Conflict):
    """The prefix overlaps with the prefix of another fleet."""

    reason = "UUID_PREFIX_TAKEN"


class LastAdminToken(Conflict):
    """It is the last valid token of an admin."""

    reason = "LAST_ADMIN_TOKEN"


class BrokerSecretNotFound(NotFound):
    """The broker has no secret with this id."""

    reason = "BROKER_SECRET_NOT_FOUND"


class TooManyBrokerSecrets(Conflict):
    """The broker has the maximum number of secrets."""

    reason = "TOO_MANY_BROKER_SECRETS"


class ServiceAccountNotFound(NotFound):
    """No service account has this id."""

    reason = "SERVICE_ACCOUNT_NOT_FOUND"


class BrokerUndecided(Unavailable):
    """The broker cannot be determined now, and a stopgap would override a configured broker."""

    reason = "BROKER_UNDECIDED"


class NoBrokerForFleet(Unavailable):
    """The fleet is restricted to brokers, and none of them can serve."""

    reason = "NO_BROKER_FOR_FLEET"
    retry_after_s = 30.0


class ServerKeyMissing(Internal):
    """A row names a server key that is not in the ring: the ring was restored incompletely, or
    another service uses a key that this one does not have.
    """

    reason = "SERVER_KEY_MISSING"


class TooManyRemovals(Conflict):
    """So many of a broker's clients would be removed at once that it is probably a mistake."""

    reason = "TOO_MANY_REMOVALS"


class TooManyClients(Conflict):
    """The broker would have more clients than can be kept in step."""

    reason = "TOO_MANY_CLIENTS"


class ControlUnreachable(Unavailable):
    """There is no connection to the managed broker, or it broke."""

    reason = "CONTROL_UNREACHABLE"


class ControlNotAllowed(Forbidden):
    """The broker refuses Mooring's login, or its commands."""

    reason = "CONTROL_NOT_ALLOWED"


class ControlSilent(DeadlineExceeded):
    """The broker has not answered in time; it is not known whether it carried out the commands."""

    reason = "CONTROL_SILENT"


class ControlUnreadable(Conflict):
    """The broker's answer is not as documented."""

    reason = "CONTROL_UNREADABLE"


class CommandsRefused(Conflict):
    """The broker has refused some commands and carried out the rest."""

    reason = "COMMANDS_REFUSED"


class JobNotFound(NotFound):
    """No job has this id."""

    reason = "JOB_NOT_FOUND"


class JobStateForbids(Conflict):
    """The present state of the job does not allow this."""

    reason = "JOB_STATE_FORBIDS"


class JobHasNoList(Conflict):
    """The list of the job's devices was not uploaded completely."""

    reason = "JOB_HAS_NO_LIST"


class JobHasFilter(Conflict):
    """The job has a filter, so it takes no list."""

    reason = "JOB_HAS_FILTER"
