"""What registered devices should connect to today, a batch at a time."""

from collections.abc import Sequence

from mooring.registry.v1 import registration_pb2 as pb
from msgspec.structs import asdict

from chassis.database import retried
from chassis.errors import MooringError
from registry_service.credentials import KeyRing
from registry_service.errors import DeviceDisabled, DeviceUnauthenticated
from registry_service.placements import Placements
from registry_service.registration.answer import Teller, Told, note_of
from registry_service.registration.records import Device, Telling
from registry_service.registration.request import check_connection_request
from registry_service.registration.store import RegistrationStore

Result = Told | MooringError


class Connections:
    """Answers each device of a batch with its connection or its own error."""

    def __init__(
        self, store: RegistrationStore, placements: Placements, ring: KeyRing, teller: Teller
    ) -> None:
        """Holds no state of its own: replicas are alike."""
        self._store = store
        self._placements = placements
        self._ring = ring
        self._teller = teller

    async def of(self, requests: Sequence[pb.ConnectionRequest], deadline: float) -> list[Result]:
        """In order. What a device is told is on its row before it is told.

        Raises `Unavailable`, once it has begun again a few times, and `DeadlineExceeded`.
        """
        return await retried(lambda: self._of(requests, deadline))

    async def _of(self, requests: Sequence[pb.ConnectionRequest], deadline: float) -> list[Result]:
        results: dict[int, Result] = {}
        wellformed: list[int] = []
        for index, request in enumerate(requests):
            try:
                check_connection_request(request)
                wellformed.append(index)
            except MooringError as error:
                results[index] = error
        known = await self._store.known_of((), {requests[index].uuid for index in wellformed})
        admitted: dict[int, Device] = {}
        for index in wellformed:
            try:
                admitted[index] = self._admitted(
                    requests[index], known.devices.get(requests[index].uuid)
                )
            except MooringError as error:
                results[index] = error
        answers = await self._placements.resolve(
            [device.placement for device in admitted.values()], known.placement_version, deadline
        )
        tellings: dict[int, Telling] = {}
        for index, device in admitted.items():
            answer = answers[device.placement]
            if isinstance(answer, MooringError):
                results[index] = answer
                continue
            if device.note != (note := note_of(answer)):
                tellings[device.id] = Telling(id=device.id, **asdict(note))
            salt, key_id = device.credential_salt, device.credential_key_id
            password = self._ring.password_of(key_id, device.uuid, salt)
            results[index] = self._teller.tell(device.uuid, salt, key_id, password, answer)
        await self._store.tell(list(tellings.values()))
        return [results[index] for index in range(len(requests))]

    def _admitted(self, request: pb.ConnectionRequest, device: Device | None) -> Device:
        if device is None or not device.is_proved_by(request.device_api_key, self._ring):
            raise DeviceUnauthenticated("no such device, or not its API key")
        if not device.is_active:
            raise DeviceDisabled("this device is disabled")
        return device
