"""The values that are read from the database and written to it. Fields have the names of their
columns: a batch is sent to the database and back as one JSON document.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from domain.pools import Location, Subject
from domain.waves import wave_of
from registry_service.attributes import Attributes
from registry_service.credentials import KeyRing, hash_of_password
from registry_service.provisioning.decision import ProvisioningKey
from registry_service.provisioning.placements import DevicePlacement
from registry_service.provisioning.request import Registration

# More rotations do not improve security, and a device that rotates in a loop writes a row and a
# change of access each time.
ROTATIONS_PER_HOUR = 60
HOUR = timedelta(hours=1)


class Note(Struct, frozen=True):
    """The last answer to a device, as its row records it."""

    told_broker_ids: list[int]
    # The step of the resolution that decided; empty if the answer is older than this column.
    told_source: str
    # The CA certificates of all its brokers, in order.
    told_ca_ids: list[int]
    # The member of a pool to which the device belongs.
    home_broker_id: int | None = None


class Device(Struct, frozen=True):
    """What an answer needs to know about a registered device."""

    placement: DevicePlacement
    id: int
    uuid: str
    device_name: str
    device_type: str
    # Empty, 0 and None for an imported device that has not registered yet.
    api_key_hash: bytes
    credential_key_id: int
    provisioned_by_key_id: UUID | None
    # It is also empty if the password was ended. Then no password is valid.
    credential_salt: str
    # The brokers of the answer for which the salt was made; None if they are the same as in `note`.
    salt_broker_ids: list[int] | None
    # Whether the device and its fleet are enabled.
    is_active: bool
    reprovisioning_allowed: bool
    note: Note
    # The address as in `Proof`; None if it is not known.
    proved_from: str | None
    has_short_api_key: bool
    # How often the device has rotated its password in the hour that began at `rotations_since`.
    rotations: int
    rotations_since: datetime | None
    created_at: datetime
    # Whether the last answer was recorded so recently that answers still wait for the broker.
    was_just_told: bool
    # As the device has sent it; the placement has it only if it is known.
    region: str = ""
    latitude: float | None = None
    longitude: float | None = None

    @property
    def location(self) -> Location | None:
        """In degrees."""
        if self.latitude is None or self.longitude is None:
            return None
        return self.latitude, self.longitude

    @property
    def subject(self) -> Subject:
        """The facts that can decide between the brokers of a pool."""
        return Subject(self.uuid, self.note.home_broker_id, self.placement.region, self.location)

    @property
    def password_broker_ids(self) -> list[int]:
        """The brokers for which its password is valid."""
        return self.note.told_broker_ids if self.salt_broker_ids is None else self.salt_broker_ids

    def rotation_wait_s(self, now: datetime) -> float:
        """Seconds until the device may rotate its password again; 0 if it may."""
        if self.rotations_since is None or self.rotations < ROTATIONS_PER_HOUR:
            return 0.0
        return max(0.0, (self.rotations_since + HOUR - now).total_seconds())

    def needs_credentials(self, ring: KeyRing) -> bool:
        """Whether the device gets new credentials after it authenticates."""
        return not self.credential_salt or self.credential_key_id != ring.active_id

    def is_proved_by(self, api_key: str, ring: KeyRing) -> bool:
        """Whether it registered with this device API key. Raises `ServerKeyMissing`."""
        return self.provisioned_by_key_id is not None and ring.is_api_key(
            self.credential_key_id, self.uuid, api_key, self.api_key_hash
        )


class RolloutProgress(Struct, frozen=True):
    """The progress of a fleet's rollout."""

    salt: str
    percent: float


class KnownKey(Struct, frozen=True):
    """A provisioning key, and the facts of its fleet that placements need."""

    hash: bytes
    key: ProvisioningKey
    fleet_has_rule: bool
    fleet_revision: int
    rollout: RolloutProgress | None = None

    def wave_of(self, uuid: str) -> str:
        """The salt of the rollout, if it reaches a new device with this uuid; else empty."""
        return wave_of(self.rollout.salt, self.rollout.percent, uuid) if self.rollout else ""


class Expected(Struct, frozen=True):
    """What an operator has set for a device before it registers."""

    id: int
    uuid: str
    fleet_id: str
    mqtt_broker_id: int | None
    # The attributes that the operator has set. The device sets the others.
    attributes: Mapping[str, Any]

    def applied_to(self, registration: Registration) -> Registration:
        """The registration, with the operator's values in place of the device's."""
        return replace(registration, **self.attributes)


class Owner(Struct, frozen=True):
    """What is known of the device that a registration is about."""

    # The fleet of its key, or else of the device; empty if neither is known.
    fleet_id: str = ""
    # Whether there is a device with its uuid.
    is_registered: bool = False


class Known(Struct, frozen=True):
    """What was read for a batch."""

    keys: Mapping[bytes, KnownKey]  # by hash
    devices: Mapping[str, Device]  # by uuid
    # The version of brokers and fleets when these rows were read.
    placement_version: str
    expected: Mapping[str, Expected] = {}  # by uuid
    # The fleets whose prefixes reserve these uuids.
    reserved: Mapping[str, str] = {}  # by uuid
    # The ids of regions that exist, of those that were asked for.
    regions: frozenset[str] = frozenset()
    # Whether a commit waits for a synchronous standby.
    is_replicated: bool = False

    def owner_of(self, registration: Registration) -> Owner:
        """The owner of a registration that is refused."""
        shown, device = self.keys.get(registration.key_hash), self.devices.get(registration.uuid)
        if shown is not None:
            return Owner(shown.key.fleet_id, device is not None)
        return Owner(device.placement.fleet_id, is_registered=True) if device else Owner()


class Credentials(Struct, frozen=True):
    """A device's credentials: the stored hashes, and the password for the answer."""

    salt: str
    key_id: int
    api_key_hash: bytes
    password: str
    password_hash: str

    @classmethod
    def made(cls, ring: KeyRing, key_id: int, uuid: str, salt: str, api_key: str) -> "Credentials":
        """The credentials of the device with this salt. Raises `ServerKeyMissing`."""
        password = ring.password_of(key_id, uuid, salt)
        return cls(
            salt,
            key_id,
            ring.hash_of_api_key(key_id, uuid, api_key),
            password,
            hash_of_password(salt, password),
        )


class Written(Note, frozen=True, kw_only=True):
    """What a row records about an answer, and about how the device authenticated. A region or
    location that is None stays as it is.
    """

    proved_from: str
    has_short_api_key: bool
    region: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class NewDeviceRow(Attributes, frozen=True, kw_only=True):
    """A row to insert, if its key, the key's fleet and the expected device have not changed since
    they were read.

    It has the fields of `Written` too. `expected_id` is None for a uuid that is not expected.
    """

    uuid: str
    fleet_id: str
    fleet_revision: int
    mqtt_broker_id: int | None
    pool_id: int | None
    home_broker_id: int | None
    mqtt_username: str
    mqtt_password_hash: str
    credential_salt: str
    credential_key_id: int
    api_key_hash: bytes
    provisioned_by_key_id: UUID
    key_revision: int
    expected_id: int | None
    told_broker_ids: list[int]
    told_source: str
    told_ca_ids: list[int]
    proved_from: str
    has_short_api_key: bool


class Renewal(Written, frozen=True, kw_only=True):
    """New credentials for a device that is provisioned anew, if its key has not changed since it
    was read.
    """

    id: int
    provisioned_by_key_id: UUID
    key_revision: int
    mqtt_username: str
    mqtt_password_hash: str
    credential_salt: str
    credential_key_id: int
    api_key_hash: bytes


class CredentialRotation(Written, frozen=True, kw_only=True):
    """New credentials, and the answer, for a row whose salt has not changed since it was read."""

    id: int
    replaced_salt: str
    mqtt_password_hash: str
    credential_salt: str
    credential_key_id: int
    api_key_hash: bytes
    # Whether the device has asked for new credentials.
    is_asked: bool


class AnswerChange(Written, frozen=True, kw_only=True):
    """The answer to a device, to be recorded because the row has another."""

    id: int


class Saved(Struct, frozen=True):
    """The result of writing a batch. If a device to insert is missing, another replica has inserted
    it, or it exceeded its key's limit.
    """

    created: Mapping[str, tuple[int, datetime]]  # by uuid: id, created_at
    renewed: frozenset[int]  # ids
    rotated: frozenset[int] = frozenset()  # ids
