"""The errors of the broker service."""

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


class FleetNotFound(NotFound):
    """No fleet has this id, or the caller may not see it."""

    reason = "FLEET_NOT_FOUND"


class DeviceNotFound(NotFound):
    """No device has this uuid, or the actor may not read it."""

    reason = "DEVICE_NOT_FOUND"


class RevisionNotFound(NotFound):
    """The broker or pool has no such revision, or the revision is a deletion."""

    reason = "REVISION_NOT_FOUND"


class BrokerNameTaken(AlreadyExists):
    """Another broker has this name."""

    reason = "BROKER_NAME_TAKEN"


class BrokerInUse(Conflict):
    """A device, fleet, key, region, pool or other broker refers to the broker; `usage` counts
    them.
    """

    reason = "BROKER_IN_USE"


class BrokerIsDefault(Conflict):
    """The broker is the default, which cannot be deleted or deactivated."""

    reason = "BROKER_IS_DEFAULT"


class BrokerInactive(Conflict):
    """The broker is not active, so it cannot be the default."""

    reason = "BROKER_INACTIVE"


class PasswordKeyGone(Conflict):
    """The encryption key of the revision's password is no longer in the ring."""

    reason = "PASSWORD_KEY_GONE"


class CertificateNotFound(NotFound):
    """No certificate has this id."""

    reason = "CERTIFICATE_NOT_FOUND"


class CertificateExists(AlreadyExists):
    """The same certificates were uploaded before, in the same order."""

    reason = "CERTIFICATE_EXISTS"


class CertificateInUse(Conflict):
    """A broker, a revision of a broker or a rotation uses the certificate; `usage` counts them."""

    reason = "CERTIFICATE_IN_USE"


class CertificateUnknown(InvalidInput):
    """There is no certificate of that kind with the given id."""

    reason = "CERTIFICATE_UNKNOWN"


class RotationNotFound(NotFound):
    """The certificate is not being replaced."""

    reason = "ROTATION_NOT_FOUND"


class RotationUnderWay(Conflict):
    """The certificate or its replacement is part of another rotation."""

    reason = "ROTATION_UNDER_WAY"


class RotationTooEarly(Conflict):
    """Too few devices have been notified of the replacement; `usage` counts them."""

    reason = "ROTATION_TOO_EARLY"


class NoBrokerAllowed(Unavailable):
    """The device's fleet is restricted, and none of its brokers can serve."""

    reason = "NO_BROKER_ALLOWED"
    retry_after_s = 30.0


class PlacementUnknown(Unavailable):
    """The placement names a broker or fleet that this service has not seen yet."""

    reason = "PLACEMENT_UNKNOWN"


class BrokerUnknown(InvalidInput):
    """There is no broker with the given id."""

    reason = "BROKER_UNKNOWN"


class FleetUnknown(InvalidInput):
    """There is no fleet with the given id."""

    reason = "FLEET_UNKNOWN"


class SecretUnreadable(Internal):
    """A secret's key is not in the ring, or the secret was moved or changed."""

    reason = "SECRET_UNREADABLE"


class TestUnderWay(Conflict):
    """The broker is being tested already, or too many others are."""

    reason = "TEST_UNDER_WAY"


class PoolNotFound(NotFound):
    """No pool has this id, or the actor may not read it."""

    reason = "POOL_NOT_FOUND"


class PoolNameTaken(AlreadyExists):
    """Another pool has this name."""

    reason = "POOL_NAME_TAKEN"


class PoolInUse(Conflict):
    """A device, fleet, provisioning key or region refers to the pool; `usage` counts them."""

    reason = "POOL_IN_USE"


class PoolIsDefault(Conflict):
    """The pool is the default, which cannot be deleted."""

    reason = "POOL_IS_DEFAULT"


class PoolNotSticky(Conflict):
    """The pool is not sticky, so there is nothing to rebalance."""

    reason = "POOL_NOT_STICKY"


class PoolUnknown(InvalidInput):
    """There is no pool with the given id."""

    reason = "POOL_UNKNOWN"


class RegionNotFound(NotFound):
    """No region has this id."""

    reason = "REGION_NOT_FOUND"


class RegionIdTaken(AlreadyExists):
    """Another region has this id."""

    reason = "REGION_ID_TAKEN"
