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


class CertificateNotFound(NotFound):
    """No certificate has this id."""

    reason = "CERTIFICATE_NOT_FOUND"


class CertificateExists(AlreadyExists):
    """The same certificates are known already, in the same order."""

    reason = "CERTIFICATE_EXISTS"


class CertificateInUse(Conflict):
    """A broker, a broker's history or a rotation names it; `usage` counts them."""

    reason = "CERTIFICATE_IN_USE"


class CertificateUnknown(InvalidInput):
    """There is no certificate of that kind with the id that is named."""

    reason = "CERTIFICATE_UNKNOWN"


class RotationNotFound(NotFound):
    """The certificate is not being replaced."""

    reason = "ROTATION_NOT_FOUND"


class RotationUnderWay(Conflict):
    """The certificate, or the one that is to replace it, has a part in another rotation."""

    reason = "ROTATION_UNDER_WAY"


class RotationTooEarly(Conflict):
    """Too few devices have been told of the replacement; `usage` counts them."""

    reason = "ROTATION_TOO_EARLY"


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
