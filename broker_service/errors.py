"""What can be wrong about brokers, as facts."""

from chassis.errors import (
    AlreadyExists,
    Conflict,
    Internal,
    InvalidInput,
    NotFound,
    Unavailable,
)


class BrokerNotFound(NotFound):
    """No broker has this id."""

    reason = "BROKER_NOT_FOUND"


class DeviceNotFound(NotFound):
    """No device has this uuid, or none that the actor sees."""

    reason = "DEVICE_NOT_FOUND"


class RevisionNotFound(NotFound):
    """The broker was never at this revision, or it was deleted with it."""

    reason = "REVISION_NOT_FOUND"


class BrokerNameTaken(AlreadyExists):
    """Another broker has this name."""

    reason = "BROKER_NAME_TAKEN"


class BrokerInUse(Conflict):
    """A device, fleet or provisioning key points at it; `usage` counts them."""

    reason = "BROKER_IN_USE"


class BrokerIsDefault(Conflict):
    """It is the default, which must stay and stay active."""

    reason = "BROKER_IS_DEFAULT"


class BrokerInactive(Conflict):
    """It is not active, so it cannot be the default."""

    reason = "BROKER_INACTIVE"


class PasswordKeyGone(Conflict):
    """The key that the revision's password was encrypted with has left the ring."""

    reason = "PASSWORD_KEY_GONE"


class NoBrokerAllowed(Unavailable):
    """The device's fleet is restricted, and none of its brokers can serve."""

    reason = "NO_BROKER_ALLOWED"
    retry_after_s = 30.0


class PlacementUnknown(Unavailable):
    """The placement names a broker or fleet that this service has not seen yet."""

    reason = "PLACEMENT_UNKNOWN"


class BrokerUnknown(InvalidInput):
    """There is no broker with the id that is named."""

    reason = "BROKER_UNKNOWN"


class FleetUnknown(InvalidInput):
    """There is no fleet with the id that is named."""

    reason = "FLEET_UNKNOWN"


class SecretUnreadable(Internal):
    """A secret's key is not in the ring, or it lies where it was not put."""

    reason = "SECRET_UNREADABLE"
