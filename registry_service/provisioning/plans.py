"""The plan for one registration, and the answer after it was carried out, over plain values. The
caller writes a plan to the database; this module does no I/O.
"""

import dataclasses
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict, replace

from chassis.errors import MooringError
from domain.pools import Subject, distance_km
from registry_service.attributes import values_of
from registry_service.credentials import KeyRing, new_salt, username_of
from registry_service.errors import (
    GUESSED,
    AskedTooOften,
    DeviceTaken,
    ProvisioningKeyUnknown,
)
from registry_service.provisioning.answer import (
    AnswerComposer,
    DeviceAnswer,
    needs_another_password,
    note_of,
)
from registry_service.provisioning.choices import Answer, Shared
from registry_service.provisioning.decision import Decision, ProvisioningKey, Registered, decide
from registry_service.provisioning.guesses import Guesses
from registry_service.provisioning.placements import DevicePlacement
from registry_service.provisioning.records import (
    AnswerChange,
    CredentialRotation,
    Credentials,
    Device,
    Expected,
    Known,
    KnownKey,
    NewDeviceRow,
    Renewal,
)
from registry_service.provisioning.request import Proof, Registration


class Outcome(Struct, frozen=True):
    """A registered device and its answer; `is_created` is false if it had registered before."""

    id: int
    uuid: str
    device_name: str
    device_type: str
    fleet_id: str
    created_at: datetime
    is_created: bool
    answer: DeviceAnswer


Result = Outcome | MooringError
# A device that is further than this from where it was may be nearer to another broker.
MOVED_KM = 100.0


class Plan(Struct, frozen=True):
    """The decision about the registration at `index` of a batch, before it is written."""

    index: int
    registration: Registration
    decision: Decision
    key: ProvisioningKey
    # None for a new device.
    device: Device | None
    # The id of the expected device; None if it was not expected or is not new.
    expected_id: int | None
    placement: DevicePlacement
    credentials: Credentials
    # Whether the device is now in another region or far from where it was.
    has_moved: bool = False

    @property
    def home_id(self) -> int | None:
        """The home of the device before this registration."""
        return self.device.note.home_broker_id if self.device else None

    def answered(self, shared: Shared) -> Answer:
        """The answer for this device."""
        registration = self.registration
        location = registration.location or (self.device.location if self.device else None)
        is_lost = self.has_moved and shared.is_by_distance
        home_id = None if is_lost else self.home_id
        return shared.of(Subject(registration.uuid, home_id, self.placement.region, location))

    @property
    def changes_credentials(self) -> bool:
        """Whether the plan makes new credentials; one such plan for each device is enough."""
        return self.decision is not Decision.CONFIRM or self.replaces_credentials

    @property
    def replaces_credentials(self) -> bool:
        """Whether the device is confirmed, with new credentials."""
        return (
            self.decision is Decision.CONFIRM
            and self.device is not None
            and self.device.credential_salt != self.credentials.salt
        )


class Planner:
    """Plans the registrations of one pass. Devices with equal facts share a placement."""

    def __init__(
        self, ring: KeyRing, composer: AnswerComposer, known: Known, guesses: Guesses, now: datetime
    ) -> None:
        """`known` holds what was read; `guesses` decide whether an API key is checked."""
        self._guesses = guesses
        self._ring = ring
        self._composer = composer
        self._known = known
        self._now = now
        self._placements: dict[tuple[UUID, str, int | None, str], DevicePlacement] = {}

    def plan(self, index: int, registration: Registration) -> Plan:
        """The plan for a registration. Raises the errors of `decide`, and `AskedTooOften`."""
        shown = self._known.keys.get(registration.key_hash)
        device = self._known.devices.get(registration.uuid)
        key = shown.key if shown else None
        expected = self._known.expected.get(registration.uuid)
        if expected is not None:
            registration = expected.applied_to(registration)
        wait_s = None
        if device is not None:
            address = registration.proof.proved_from
            wait_s = self._guesses.wait_s(device.uuid, address, device.proved_from or "")
        try:
            decision = decide(
                key,
                _registered(device) if device else None,
                uuid=registration.uuid,
                device_type=registration.device_type,
                source_address=registration.source_address,
                expected_in=expected.fleet_id if expected else None,
                is_same_api_key=device is not None
                and wait_s is None
                and device.is_proved_by(registration.device_api_key, self._ring),
                now=self._now,
                reserved_for=self._known.reserved.get(registration.uuid),
            )
        except DeviceTaken:
            if wait_s is not None:
                raise AskedTooOften(GUESSED, retry_after_s=wait_s) from None
            raise
        if shown is None or key is None:
            raise ProvisioningKeyUnknown("this provisioning key is not known")
        salt, key_id = registration.salt, self._ring.active_id
        if device is not None and decision is Decision.CONFIRM:
            if device.needs_credentials(self._ring):
                # Not the salt of the registration, which would mark the device as created now.
                salt = new_salt()
            else:
                salt, key_id = device.credential_salt, device.credential_key_id
        return Plan(
            index,
            registration,
            decision,
            key,
            device,
            expected.id if expected and device is None else None,
            self._placement_of(device, registration)
            if device
            else self._placement(shown, registration, expected),
            Credentials.made(
                self._ring, key_id, registration.uuid, salt, registration.device_api_key
            ),
            device is not None and has_moved(device, registration),
        )

    def _placement_of(self, device: Device, registration: Registration) -> DevicePlacement:
        """The placement of a registered device, which may be in another region now."""
        region = self._known_region(registration)
        if not registration.region or region == device.placement.region:
            return device.placement
        return dataclasses.replace(device.placement, region=region)

    def _known_region(self, registration: Registration) -> str:
        return registration.region if registration.region in self._known.regions else ""

    def _placement(
        self, shown: KnownKey, registration: Registration, expected: Expected | None
    ) -> DevicePlacement:
        """The placement of a new device with this key. An operator's pin for the device overrides
        the key's default broker.
        """
        key, region = shown.key, self._known_region(registration)
        pin = expected.mqtt_broker_id if expected else None
        wave = shown.wave_of(registration.uuid)
        placement = self._placements.get((key.id, region, pin, wave))
        if placement is None:
            placement = self._placements[key.id, region, pin, wave] = DevicePlacement(
                key.default_broker_id if pin is None else pin,
                key.fleet_id,
                region,
                shown.fleet_has_rule,
                shown.fleet_revision,
                wave,
                None if pin is not None else key.default_pool_id,
            )
        return placement

    def for_answer(self, plan: Plan, answer: Answer) -> Plan:
        """The plan, with new credentials if the answer requires them."""
        device = plan.device
        if (
            device is None
            or plan.changes_credentials
            or not needs_another_password(device.password_broker_ids, answer)
        ):
            return plan
        credentials = Credentials.made(
            self._ring,
            self._ring.active_id,
            device.uuid,
            new_salt(),
            plan.registration.device_api_key,
        )
        return replace(plan, credentials=credentials)

    def outcome(self, plan: Plan, answer: Answer, device_id: int, created_at: datetime) -> Outcome:
        """The answer, after the plan was written to the database."""
        registration, device, credentials = plan.registration, plan.device, plan.credentials
        return Outcome(
            device_id,
            registration.uuid,
            device.device_name if device else registration.device_name,
            device.device_type if device else registration.device_type,
            plan.placement.fleet_id,
            created_at,
            # The salt was made for this call. So this is true also if an earlier attempt of this
            # call was committed, but the database's answer was lost.
            device is None or device.credential_salt == registration.salt,
            self._composer.compose(
                registration.uuid,
                credentials.salt,
                credentials.key_id,
                credentials.password,
                answer,
                is_newly_notified=device is None
                or plan.decision is not Decision.CONFIRM
                or plan.changes_credentials
                or device.was_just_told
                or device.note != note_of(answer, plan.home_id),
            ),
        )


def new_device(plan: Plan, answer: Answer) -> NewDeviceRow:
    """The row that a plan inserts."""
    registration, credentials, placement = plan.registration, plan.credentials, plan.placement
    note, proof = note_of(answer), registration.proof
    return NewDeviceRow(
        *values_of(registration),
        uuid=registration.uuid,
        fleet_id=placement.fleet_id,
        fleet_revision=placement.fleet_revision,
        mqtt_broker_id=placement.broker_id,
        pool_id=placement.pool_id,
        home_broker_id=note.home_broker_id,
        mqtt_username=username_of(registration.uuid),
        mqtt_password_hash=credentials.password_hash,
        credential_salt=credentials.salt,
        credential_key_id=credentials.key_id,
        api_key_hash=credentials.api_key_hash,
        provisioned_by_key_id=plan.key.id,
        key_revision=plan.key.revision,
        expected_id=plan.expected_id,
        told_broker_ids=note.told_broker_ids,
        told_source=note.told_source,
        told_ca_ids=note.told_ca_ids,
        proved_from=proof.proved_from,
        has_short_api_key=proof.has_short_api_key,
    )


def renewal(plan: Plan, device: Device, answer: Answer) -> Renewal:
    """The change of a row that a plan with new credentials makes."""
    credentials = plan.credentials
    return Renewal(
        id=device.id,
        provisioned_by_key_id=plan.key.id,
        key_revision=plan.key.revision,
        mqtt_username=username_of(device.uuid),
        mqtt_password_hash=credentials.password_hash,
        credential_salt=credentials.salt,
        credential_key_id=credentials.key_id,
        api_key_hash=credentials.api_key_hash,
        **asdict(note_of(answer, device.note.home_broker_id)),
        **asdict(plan.registration.proof),
        **changed_place(device, plan.registration),
    )


def rotation(
    device: Device,
    credentials: Credentials,
    answer: Answer,
    proof: Proof,
    *,
    is_asked: bool,
    registration: Registration | None = None,
) -> CredentialRotation:
    """The change that replaces the device's credentials; `is_asked`: the device asked for it."""
    return CredentialRotation(
        id=device.id,
        replaced_salt=device.credential_salt,
        mqtt_password_hash=credentials.password_hash,
        credential_salt=credentials.salt,
        credential_key_id=credentials.key_id,
        api_key_hash=credentials.api_key_hash,
        is_asked=is_asked,
        **asdict(note_of(answer, device.note.home_broker_id)),
        **asdict(proof),
        **(changed_place(device, registration) if registration else {}),
    )


def answer_change(
    device: Device,
    answer: Answer,
    proof: Proof,
    *,
    is_watched: bool,
    registration: Registration | None = None,
) -> AnswerChange | None:
    """The change of the device's row that records this answer; None if the row has it already, as
    most have. The address from which the device authenticated is written only while there are
    failed attempts for the device (`is_watched`), so that a change of address costs no write.
    """
    note = note_of(answer, device.note.home_broker_id)
    place = changed_place(device, registration) if registration else {}
    if (
        device.note == note
        and not place
        and device.has_short_api_key == proof.has_short_api_key
        and not (is_watched and device.proved_from != proof.proved_from)
    ):
        return None
    return AnswerChange(id=device.id, **asdict(note), **asdict(proof), **place)


def changed_place(device: Device, registration: Registration) -> dict[str, Any]:
    """The region and location that the device sends, if its row has others."""
    place: dict[str, Any] = {}
    if registration.region not in ("", device.region):
        place["region"] = registration.region
    location = registration.location
    if location is not None and location != device.location:
        place["latitude"], place["longitude"] = location
    return place


def has_moved(device: Device, registration: Registration) -> bool:
    """Whether the device is in another region, or more than `MOVED_KM` from where it was."""
    if registration.region not in ("", device.region):
        return True
    was, now = device.location, registration.location
    return was is not None and now is not None and distance_km(was, now) > MOVED_KM


def _registered(device: Device) -> Registered:
    return Registered(
        device.provisioned_by_key_id,
        device.placement.fleet_id,
        device.is_active,
        device.reprovisioning_allowed,
    )
