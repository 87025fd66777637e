"""Answers registered devices, a batch at a time: their brokers and passwords now."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from mooring.registry.v1 import registration_pb2 as pb

from chassis.database_failures import retried
from chassis.errors import LostRace, MooringError, as_value
from registry_service.activity.recording import Activity
from registry_service.activity.timeline.events import ROTATION_REFUSED, SETTINGS_REFUSED
from registry_service.credentials import KeyRing, new_salt
from registry_service.errors import AskedTooOften
from registry_service.provisioning.answer import (
    AnswerComposer,
    DeviceAnswer,
    needs_another_password,
    note_changed,
    note_of,
)
from registry_service.provisioning.authentication import authenticated
from registry_service.provisioning.choices import Answer
from registry_service.provisioning.guesses import Guesses
from registry_service.provisioning.placements import Placements
from registry_service.provisioning.plans import answer_change, rotation
from registry_service.provisioning.records import (
    ROTATIONS_PER_HOUR,
    AnswerChange,
    CredentialRotation,
    Credentials,
    Device,
)
from registry_service.provisioning.request import Proof, check_connection_request
from registry_service.provisioning.store import RegistrationStore

Result = DeviceAnswer | MooringError
Requests = Mapping[int, pb.ConnectionRequest]  # by their place in the call

MAX_PASSES = 5


class Connections:
    """Answers each device of a batch with its connection or its own error."""

    def __init__(
        self,
        store: RegistrationStore,
        placements: Placements,
        ring: KeyRing,
        composer: AnswerComposer,
        guesses: Guesses,
        activity: Activity,
    ) -> None:
        """Keeps no state except `guesses`, so that any replica can answer.

        Records to `activity`.
        """
        self._guesses = guesses
        self._activity = activity
        self._store = store
        self._placements = placements
        self._ring = ring
        self._composer = composer

    async def of(
        self,
        requests: Sequence[pb.ConnectionRequest],
        deadline: float,
        *,
        is_rotating: bool = False,
    ) -> list[Result]:
        """The results, in order. A device's row records an answer before the device gets it.
        `is_rotating`: the devices want new passwords. The batch may be repeated, even if it is not
        known whether a commit took effect, because a device whose credentials were replaced since
        the first read gets no other password. Raises `Unavailable` after a few attempts, and
        `DeadlineExceeded`.
        """
        results: dict[int, Result] = {}
        pending: dict[int, pb.ConnectionRequest] = {}
        for index, request in enumerate(requests):
            try:
                check_connection_request(request)
                pending[index] = request
            except MooringError as error:
                results[index] = as_value(error)
        # The salts at the first read, by uuid; None if no device wants a new password.
        replaced: dict[str, str] | None = {} if is_rotating else None
        # The fleets of existing devices whose requests failed.
        refused: dict[int, str] = {}
        for _ in range(MAX_PASSES):
            if not pending:
                break
            results |= await retried(partial(self._pass, pending, replaced, deadline, refused))
            pending = {index: item for index, item in pending.items() if index not in results}
        left = LostRace("this device's credentials are being changed", retry_after_s=1.0)
        done = [results.get(index, left) for index in range(len(requests))]
        kind = ROTATION_REFUSED if is_rotating else SETTINGS_REFUSED
        for index, result in enumerate(done):
            if isinstance(result, MooringError):
                uuid = requests[index].uuid if index in refused else ""
                address = requests[index].source_address
                fleet_id = refused.get(index, "")
                self._activity.refused(kind, result.reason, fleet_id, uuid=uuid, address=address)
        return done

    async def _pass(
        self,
        requests: Requests,
        replaced: dict[str, str] | None,
        deadline: float,
        refused: dict[int, str],
    ) -> dict[int, Result]:
        """The answers, except for devices whose credentials another transaction has changed
        meanwhile. Adds the fleets of existing devices that are refused to `refused`.
        """
        results: dict[int, Result] = {}
        known = await self._store.known_of((), {request.uuid for request in requests.values()})
        admitted: dict[int, Device] = {}
        for index, request in requests.items():
            try:
                admitted[index] = authenticated(
                    request, known.devices.get(request.uuid), self._ring, self._guesses
                )
            except MooringError as error:
                results[index] = as_value(error)
                if (device := known.devices.get(request.uuid)) is not None:
                    refused[index] = device.placement.fleet_id
        answers = await self._placements.resolve(
            [device.placement for device in admitted.values()], known.placement_version, deadline
        )
        now = datetime.now(UTC)
        found: dict[int, Answer] = {}
        answer_changes: dict[int, AnswerChange] = {}
        rotations: dict[int, tuple[CredentialRotation, Credentials]] = {}
        for index, device in admitted.items():
            shared, request = answers[device.placement], requests[index]
            proof = _proof(request)
            is_asked = _is_asked(device, replaced)
            if isinstance(shared, MooringError):
                results[index] = shared
                refused[index] = device.placement.fleet_id
                continue
            answer = found[index] = shared.of(device.subject)
            if is_asked and (wait_s := device.rotation_wait_s(now)):
                results[index] = self._rotated_too_often(device, proof, wait_s)
                refused[index] = device.placement.fleet_id
            elif is_asked or self._needs_others(device, answer):
                if device.id not in rotations:
                    credentials = self._credentials(device, request.device_api_key)
                    change = rotation(
                        device, credentials, answer, proof, is_asked=replaced is not None
                    )
                    rotations[device.id] = change, credentials
            elif changed_answer := answer_change(
                device, answer, proof, is_watched=self._guesses.is_watched(device.uuid)
            ):
                answer_changes[device.id] = changed_answer
        rotated = await self._store.rotate([change for change, _ in rotations.values()])
        await self._store.record_answers(list(answer_changes.values()))
        if replaced is not None and known.is_replicated:
            # An earlier call has rotated these devices' passwords. Their answers come from rows
            # that were read.
            read = {one.id: one for one in admitted.values() if one.id not in rotations}
            if read:
                await self._store.mark(list(read.values()))
        for index, device in admitted.items():
            if index in results:
                continue
            answer = found[index]
            salt, key_id = device.credential_salt, device.credential_key_id
            if device.id in rotations:
                if device.id not in rotated:
                    continue
                _, credentials = rotations[device.id]
                salt, key_id = credentials.salt, credentials.key_id
            password = self._ring.password_of(key_id, device.uuid, salt)
            composed = results[index] = self._composer.compose(
                device.uuid,
                salt,
                key_id,
                password,
                answer,
                is_newly_notified=device.id in rotations
                or device.id in answer_changes
                or device.was_just_told,
            )
            address = requests[index].source_address
            if device.note != note_of(answer, device.note.home_broker_id):
                note_changed(self._activity, device, answer, composed.generation, address)
            if device.id in rotations:
                self._activity.credentials_rotated(device.uuid, address)
        return results

    def _needs_others(self, device: Device, answer: Answer) -> bool:
        """Whether the device gets new credentials with any request."""
        return device.needs_credentials(self._ring) or needs_another_password(
            device.password_broker_ids, answer
        )

    def _credentials(self, device: Device, api_key: str) -> Credentials:
        return Credentials.made(self._ring, self._ring.active_id, device.uuid, new_salt(), api_key)

    def _rotated_too_often(self, device: Device, proof: Proof, wait_s: float) -> AskedTooOften:
        error = AskedTooOften(
            f"a password can be replaced {ROTATIONS_PER_HOUR} times an hour at most",
            retry_after_s=max(1.0, wait_s),
        )
        self._guesses.audit.note_by(
            "device",
            device.uuid,
            "device.rotate_credentials",
            device.uuid,
            error.reason,
            address=proof.proved_from,
        )
        return error


def _proof(request: pb.ConnectionRequest) -> Proof:
    return Proof.of(request.source_address, request.device_api_key)


def _is_asked(device: Device, replaced: dict[str, str] | None) -> bool:
    """Whether the device wants a new password, and still has the one from before its request."""
    salt = device.credential_salt
    return replaced is not None and replaced.setdefault(device.uuid, salt) == salt
