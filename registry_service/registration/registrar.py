"""Registers a batch of devices.

Read keys and devices, decide, resolve brokers, write in one transaction, answer: a pass. What a
pass leaves over (a second registration of the same uuid in the batch, a uuid that another replica
inserted first, a place that such a race gave back) is decided again from a fresh reading. That is
always safe, because registering is idempotent, and for the same reason a batch whose database
connection broke begins again, even where nobody knows whether its commit took effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from mooring.registry.v1 import registration_pb2 as pb
from sqlalchemy.exc import DBAPIError

from chassis.database import Refusal, described, refusal_of, retried
from chassis.errors import InvalidInput, LostRace, MooringError, Unavailable
from chassis.times import timestamp_of
from registry_service.credentials import KeyRing, hash_of_password, username_of
from registry_service.errors import ProvisioningKeyUnknown
from registry_service.placements import Answer, Placement, Placements
from registry_service.provisioning import Decision, ProvisioningKey, Registered, decide
from registry_service.registration.answer import Teller, Told, told_ids
from registry_service.registration.records import (
    Credentials,
    Device,
    Known,
    NewDevice,
    Renewal,
    Telling,
)
from registry_service.registration.request import Registration
from registry_service.registration.store import RegistrationStore

log = structlog.get_logger(__name__)

MAX_PASSES = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """A registered device's answer, and the broker it refers to."""

    device: pb.RegisteredDevice
    told: Told


Result = Outcome | MooringError


@dataclass(slots=True)
class _Plan:
    """What a pass has decided for one registration and not yet written."""

    index: int
    registration: Registration
    decision: Decision
    key: ProvisioningKey
    # None for a new one.
    device: Device | None
    placement: Placement
    salt: str
    key_id: int


class Registrar:
    """Answers each registration of a batch with its own outcome or its own error."""

    def __init__(
        self, store: RegistrationStore, placements: Placements, ring: KeyRing, teller: Teller
    ) -> None:
        """Holds no state of its own: replicas are alike."""
        self._store = store
        self._placements = placements
        self._ring = ring
        self._teller = teller

    async def register(
        self, registrations: Sequence[Registration], deadline: float
    ) -> list[Result]:
        """In order. `deadline` is a time of the running loop's clock."""
        results: dict[int, Result] = {}
        pending = list(range(len(registrations)))
        for _ in range(MAX_PASSES):
            results |= await self._pass_with_retries(registrations, pending, deadline)
            pending = [index for index in pending if index not in results]
            if not pending:
                break
        left = LostRace("this device is being registered elsewhere", retry_after_s=1.0)
        return [results.get(index, left) for index in range(len(registrations))]

    async def _pass_with_retries(
        self, registrations: Sequence[Registration], pending: Sequence[int], deadline: float
    ) -> dict[int, Result]:
        """A pass over `pending`, begun again after a race or a lost connection, split for data."""
        try:
            return await retried(lambda: self._pass(registrations, pending, deadline))
        except Unavailable as error:
            return dict.fromkeys(pending, error)
        except DBAPIError as refused:
            if refusal_of(refused) is not Refusal.DATA:
                raise
            return await self._split(registrations, pending, deadline, refused)

    async def _split(
        self,
        registrations: Sequence[Registration],
        pending: Sequence[int],
        deadline: float,
        refused: DBAPIError,
    ) -> dict[int, Result]:
        """Both halves apart, so that only the item at fault fails."""
        if len(pending) == 1:
            log.warning("the database refused a registration", **described(refused))
            error = InvalidInput("the database refuses these values", reason="REFUSED_VALUES")
            return {pending[0]: error}
        middle = len(pending) // 2
        first = await self._pass_with_retries(registrations, pending[:middle], deadline)
        return first | await self._pass_with_retries(registrations, pending[middle:], deadline)

    async def _pass(
        self, registrations: Sequence[Registration], pending: Sequence[int], deadline: float
    ) -> dict[int, Result]:
        now = datetime.now(UTC)
        results: dict[int, Result] = {}
        known = await self._store.known_of([registrations[index] for index in pending])
        plans: list[_Plan] = []
        planned: set[str] = set()
        for index, item in zip(pending, known, strict=True):
            try:
                plan = self._plan(index, registrations[index], item, now)
            except MooringError as error:
                results[index] = error
                continue
            if plan.decision is not Decision.CONFIRM:
                if plan.registration.uuid in planned:
                    continue  # decided again when its neighbour is written
                planned.add(plan.registration.uuid)
            plans.append(plan)

        answers = await self._placements.resolve([plan.placement for plan in plans], deadline)
        answered: list[tuple[_Plan, Answer]] = []
        for plan in plans:
            answer = answers[plan.placement]
            if isinstance(answer, MooringError):
                results[plan.index] = answer
            else:
                answered.append((plan, answer))
        return results | await self._write(answered, now)

    def _plan(self, index: int, registration: Registration, known: Known, now: datetime) -> _Plan:
        key, device = known.key, known.device
        decision = decide(
            key,
            _registered(device),
            is_same_api_key=device is not None
            and self._ring.is_api_key(
                device.credential_key_id,
                device.uuid,
                registration.device_api_key,
                device.api_key_hash,
            ),
            now=now,
        )
        if decision is Decision.CONFIRM and device is not None:
            salt, key_id = device.credential_salt, device.credential_key_id
        else:
            salt, key_id = registration.salt, self._ring.active_id
        placement = device.placement if device else known.key_placement
        if key is None or placement is None:
            raise ProvisioningKeyUnknown("this provisioning key is not known")
        return _Plan(index, registration, decision, key, device, placement, salt, key_id)

    async def _write(
        self, answered: Sequence[tuple[_Plan, Answer]], now: datetime
    ) -> dict[int, Result]:
        new, renewals, tellings = [], [], []
        for plan, answer in answered:
            device = plan.device
            if device is None:
                new.append(
                    NewDevice(
                        plan.registration,
                        plan.key.id,
                        plan.placement,
                        username_of(plan.registration.uuid),
                        self._credentials(plan),
                        told_ids(answer),
                    )
                )
                continue
            if plan.decision is Decision.RENEW:
                renewals.append(Renewal(device.id, plan.key.id, self._credentials(plan)))
            if list(device.told_broker_ids) != told_ids(answer):
                tellings.append(Telling(device.id, told_ids(answer)))
        saved = await self._store.save(new, renewals, tellings, now)

        results: dict[int, Result] = {}
        for plan, answer in answered:
            device = plan.device
            if device is None:
                made = saved.created.get(plan.registration.uuid)
                if made is not None:
                    results[plan.index] = self._outcome(plan, answer, *made)
            elif plan.decision is Decision.CONFIRM or device.id in saved.renewed:
                results[plan.index] = self._outcome(plan, answer, device.id, device.created_at)
        return results

    def _credentials(self, plan: _Plan) -> Credentials:
        uuid = plan.registration.uuid
        password = self._ring.password_of(plan.key_id, uuid, plan.salt)
        return Credentials(
            plan.salt,
            plan.key_id,
            self._ring.hash_of_api_key(plan.key_id, uuid, plan.registration.device_api_key),
            hash_of_password(plan.salt, password),
        )

    def _outcome(
        self, plan: _Plan, answer: Answer, device_id: int, created_at: datetime
    ) -> Outcome:
        device = plan.device
        told = self._teller.tell(plan.registration.uuid, plan.salt, plan.key_id, answer)
        return Outcome(
            pb.RegisteredDevice(
                id=device_id,
                uuid=plan.registration.uuid,
                device_name=device.device_name if device else plan.registration.device_name,
                device_type=device.device_type if device else plan.registration.device_type,
                fleet_id=plan.placement.fleet_id,
                created_at=timestamp_of(created_at),
                # Ours too when a commit took effect unseen: the salt was made for this call.
                created=device is None or device.credential_salt == plan.registration.salt,
                connection=told.connection,
            ),
            told,
        )


def _registered(device: Device | None) -> Registered | None:
    if device is None:
        return None
    return Registered(
        device.provisioned_by_key_id,
        device.placement.fleet_id,
        device.is_active,
        device.reprovisioning_allowed,
    )
