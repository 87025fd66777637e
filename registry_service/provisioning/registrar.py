"""Registers a batch of devices.

A pass reads keys and devices, decides, resolves brokers, writes and answers. It may leave
registrations over: the second registration of a uuid in the batch, a uuid that another replica
inserted first, or a device for which such a race leaves room within the key's limit. The next pass
decides them again from a new read. That is always safe, because registering is idempotent. For the
same reason a batch is repeated if its database connection breaks, even if it is not known whether
the commit took effect.

While most devices are new, a guess comes first. It assumes that the devices are unknown, and that
their keys and brokers have not changed since the last read. The statement that inserts them checks
the guess, so a wrong guess writes nothing. When very many devices register at once, this saves a
read and a call to the broker service. A pass decides the registrations that the guess leaves over.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import structlog

from chassis.database_failures import (
    DATABASE_UNAVAILABLE,
    DriverError,
    FailureKind,
    described,
    failure_kind_of,
    retried,
)
from chassis.errors import InvalidInput, LostRace, MooringError, Unavailable, as_value
from registry_service.activity.recording import Activity
from registry_service.activity.timeline.events import REGISTRATION_REFUSED
from registry_service.credentials import KeyRing
from registry_service.errors import (
    DeviceNotExpected,
    DeviceTaken,
    DeviceTypeNotAllowed,
    UuidNotAllowed,
)
from registry_service.provisioning.answer import AnswerComposer, note_changed, note_of
from registry_service.provisioning.choices import Answer
from registry_service.provisioning.decision import Decision
from registry_service.provisioning.guesses import Guesses
from registry_service.provisioning.placements import Placements
from registry_service.provisioning.plans import (
    Plan,
    Planner,
    Result,
    answer_change,
    new_device,
    renewal,
    rotation,
)
from registry_service.provisioning.records import Known, KnownKey, Owner
from registry_service.provisioning.regions import KnownRegions
from registry_service.provisioning.request import Registration
from registry_service.provisioning.store import RegistrationStore

log = structlog.get_logger(__name__)

MAX_PASSES = 5
MAX_REMEMBERED_KEYS = 1_000
# Refusals that are possible only with a wrong device API key of an existing device. They do not
# reveal whether the device exists, so counting them must not reveal it either.
MISSED = (DeviceTaken, UuidNotAllowed, DeviceTypeNotAllowed, DeviceNotExpected)

Batch = Mapping[int, Registration]  # by their place in the call
Owners = dict[int, Owner]  # likewise
Work = Callable[[Batch], Awaitable[dict[int, Result]]]


class Registrar:
    """Answers each registration of a batch with its own outcome or its own error."""

    def __init__(
        self,
        store: RegistrationStore,
        placements: Placements,
        ring: KeyRing,
        composer: AnswerComposer,
        guesses: Guesses,
        activity: Activity,
    ) -> None:
        """Keeps only what a guess needs, so that any replica can register devices. Records to
        `activity`.
        """
        self._guesses = guesses
        self._activity = activity
        self._store = store
        self._placements = placements
        self._ring = ring
        self._composer = composer
        # The keys at the last read, by hash.
        self._keys: OrderedDict[bytes, KnownKey] = OrderedDict()
        self._regions = KnownRegions()
        # Whether most of the last batch were new devices.
        self._are_new = True

    async def register(
        self, registrations: Sequence[Registration], deadline: float
    ) -> list[Result]:
        """The results, in order. `deadline` is a time of the running loop's clock. Raises
        `Unavailable` if the database is away for all of them.
        """
        results: dict[int, Result] = {}
        pending: Batch = dict(enumerate(registrations))
        if self._are_new:
            results = await self._with_retries(self._guess, pending)
            pending = _without(pending, results)
        refused: Owners = {}
        read_first = partial(self._pass, deadline=deadline, refused=refused)
        for _ in range(MAX_PASSES):
            if not pending:
                break
            results |= await self._with_retries(read_first, pending)
            pending = _without(pending, results)
        left = LostRace("another request is registering this device", retry_after_s=1.0)
        done = [results.get(index, left) for index in range(len(registrations))]
        failures = [
            result
            for result in done
            if isinstance(result, Unavailable) and result.reason == DATABASE_UNAVAILABLE
        ]
        if len(failures) == len(done):
            # The database is at fault, and not these devices, so the queue must count a failure.
            # The gateway counts the refusals then.
            raise failures[0]
        for index, result in enumerate(done):
            if isinstance(result, MooringError):
                self._note_refused(registrations[index], result, refused.get(index, Owner()))
        return done

    def _note_refused(self, registration: Registration, error: MooringError, of: Owner) -> None:
        self._activity.refused(
            REGISTRATION_REFUSED,
            error.reason,
            of.fleet_id,
            uuid=registration.uuid if of.is_registered else "",
            address=registration.source_address,
        )

    async def _with_retries(self, work: Work, pending: Batch) -> dict[int, Result]:
        """Repeats a batch after a race or a lost connection, and splits it if the database refuses
        values.
        """
        try:
            return await retried(lambda: work(pending))
        except Unavailable as error:
            return dict.fromkeys(pending, error)
        except DriverError as refused:
            if failure_kind_of(refused) is not FailureKind.DATA:
                raise
            return await self._split(work, pending, refused)

    async def _split(self, work: Work, pending: Batch, refused: DriverError) -> dict[int, Result]:
        """Registers both halves separately, so that only the wrong item fails."""
        if len(pending) == 1:
            log.warning("the database refused a registration", **described(refused))
            error = InvalidInput("the database refuses these values", reason="REFUSED_VALUES")
            return dict.fromkeys(pending, error)
        items = list(pending.items())
        middle = len(items) // 2
        first = await self._with_retries(work, dict(items[:middle]))
        return first | await self._with_retries(work, dict(items[middle:]))

    async def _guess(self, pending: Batch) -> dict[int, Result]:
        """The outcomes of the devices for which the guess was right."""
        now = datetime.now(UTC)
        version = self._placements.version
        known = Known(self._keys, {}, version, regions=self._regions.found)
        planner = Planner(self._ring, self._composer, known, self._guesses, now)
        guesses: dict[str, tuple[Plan, Answer]] = {}  # by uuid
        for index, registration in pending.items():
            if registration.key_hash not in self._keys or registration.uuid in guesses:
                continue
            if not self._regions.knows(registration.region, version):
                continue
            try:
                plan = planner.plan(index, registration)
            except MooringError:
                continue  # a pass decides from a new read
            guessed = self._placements.guess(plan.placement)
            if guessed is not None:
                guesses[registration.uuid] = (plan, plan.answered(guessed))
        if not guesses:
            return {}

        rows = [new_device(*guess) for guess in guesses.values()]
        saved = await self._store.save(rows, (), (), (), now, version)
        results: dict[int, Result] = {}
        for uuid, made in saved.created.items():
            plan, answer = guesses[uuid]
            results[plan.index] = planner.outcome(plan, answer, *made)
        self._are_new = len(saved.created) * 2 >= len(pending)
        return results

    async def _pass(self, pending: Batch, *, deadline: float, refused: Owners) -> dict[int, Result]:
        """Adds the owners of refused registrations to `refused`."""
        now = datetime.now(UTC)
        results: dict[int, Result] = {}
        regions = {registration.region for registration in pending.values()} - {""}
        known = await self._store.known_of(
            {registration.key_hash for registration in pending.values()},
            {registration.uuid for registration in pending.values()},
            regions,
        )
        self._remember(known)
        self._regions.read(regions, known)
        # A guess cannot register expected devices, because it does not read what is expected.
        self._are_new = len(known.devices.keys() | known.expected.keys()) * 2 <= len(pending)
        planner = Planner(self._ring, self._composer, known, self._guesses, now)
        plans: list[Plan] = []
        for index, registration in pending.items():
            try:
                plans.append(planner.plan(index, registration))
            except MooringError as error:
                if isinstance(error, MISSED):
                    address = registration.proof.proved_from
                    self._guesses.note(registration.uuid, address, error.reason)
                results[index] = as_value(error)
                refused[index] = known.owner_of(registration)

        answers = await self._placements.resolve(
            (plan.placement for plan in plans), known.placement_version, deadline
        )
        answered: list[tuple[Plan, Answer]] = []
        changed: set[str] = set()
        for decided in plans:
            shared = answers[decided.placement]
            if isinstance(shared, MooringError):
                results[decided.index] = shared
                refused[decided.index] = known.owner_of(decided.registration)
                continue
            answer = decided.answered(shared)
            plan = planner.for_answer(decided, answer)
            if plan.changes_credentials:
                uuid = plan.registration.uuid
                if uuid in changed:
                    continue  # the next pass decides again, after the other one is written
                changed.add(uuid)
            answered.append((plan, answer))
        return results | await self._write(
            planner, answered, now, is_replicated=known.is_replicated
        )

    async def _write(
        self,
        planner: Planner,
        answered: Sequence[tuple[Plan, Answer]],
        now: datetime,
        *,
        is_replicated: bool,
    ) -> dict[int, Result]:
        new, renewals, rotations, answer_changes = [], [], [], []
        for plan, answer in answered:
            device = plan.device
            if device is None:
                new.append(new_device(plan, answer))
            elif plan.decision is Decision.RENEW:
                renewals.append(renewal(plan, device, answer))
            elif plan.replaces_credentials:
                proof = plan.registration.proof
                rotations.append(
                    rotation(
                        device,
                        plan.credentials,
                        answer,
                        proof,
                        is_asked=False,
                        registration=plan.registration,
                    )
                )
            elif change := answer_change(
                device,
                answer,
                plan.registration.proof,
                is_watched=self._guesses.is_watched(device.uuid),
                registration=plan.registration,
            ):
                answer_changes.append(change)
        saved = await self._store.save(new, renewals, rotations, answer_changes, now)
        written = saved.renewed | saved.rotated

        if is_replicated:
            # The answers about these devices come from rows that were read. If the leader fails,
            # the next one might lack those rows.
            read = {one.id: one for plan, _ in answered if (one := plan.device) is not None}
            if unwritten := [one for one in read.values() if one.id not in written]:
                await self._store.mark(unwritten)

        results: dict[int, Result] = {}
        for plan, answer in answered:
            device = plan.device
            if device is None:
                made = saved.created.get(plan.registration.uuid)
                if made is not None:
                    results[plan.index] = planner.outcome(plan, answer, *made)
            elif device.id in written or (
                plan.decision is Decision.CONFIRM and not plan.replaces_credentials
            ):
                outcome = planner.outcome(plan, answer, device.id, device.created_at)
                results[plan.index] = outcome
                address = plan.registration.source_address
                if device.note != note_of(answer, plan.home_id):
                    note_changed(self._activity, device, answer, outcome.answer.generation, address)
                if device.id in saved.rotated:
                    self._activity.credentials_rotated(device.uuid, address)
        return results

    def _remember(self, known: Known) -> None:
        for key_hash, key in known.keys.items():
            restrictions = key.key.restrictions
            if restrictions is not None and restrictions.uuids is not None:
                # Guesses do not serve keys with lists of uuids, which would fill the memory.
                self._keys.pop(key_hash, None)
                continue
            self._keys[key_hash] = key
            self._keys.move_to_end(key_hash)
        while len(self._keys) > MAX_REMEMBERED_KEYS:
            self._keys.popitem(last=False)


def _without(pending: Batch, results: Mapping[int, Result]) -> Batch:
    return {index: item for index, item in pending.items() if index not in results}
