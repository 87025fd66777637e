"""Authenticates registered devices by their API keys."""

from mooring.registry.v1 import registration_pb2, reports_pb2

from registry_service.credentials import KeyRing
from registry_service.errors import (
    GUESSED,
    AskedTooOften,
    DeviceDisabled,
    DeviceUnauthenticated,
)
from registry_service.provisioning.guesses import Guesses, network_of
from registry_service.provisioning.records import Device

DeviceRequest = registration_pb2.ConnectionRequest | reports_pb2.ConnectionReport


def authenticated(
    request: DeviceRequest, device: Device | None, ring: KeyRing, guesses: Guesses
) -> Device:
    """The device, if the request has its API key; None if there is none with the uuid.

    Failed attempts are counted and limited by `guesses`. Raises `AskedTooOften`,
    `DeviceUnauthenticated`, `DeviceDisabled`, `ServerKeyMissing`.
    """
    address = network_of(request.source_address)
    proved_from = (device.proved_from if device else None) or ""
    wait_s = guesses.wait_s(request.uuid, address, proved_from)
    if wait_s is not None:
        raise AskedTooOften(GUESSED, retry_after_s=wait_s)
    if device is None or not device.is_proved_by(request.device_api_key, ring):
        guesses.note(request.uuid, address, DeviceUnauthenticated.reason)
        raise DeviceUnauthenticated("no such device, or not its API key")
    if not device.is_active:
        raise DeviceDisabled("this device is disabled")
    return device
