"""What an installation holds when a small company uses it: for screenshots, and for every page."""

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chassis.database import pool_of
from registry_service.activity.series import store
from registry_service.activity.series.counts import Counts
from registry_service.errors import (
    DeviceUnauthenticated,
    ProvisioningKeyUsedUp,
    UuidNotAllowed,
)
from tests.stack import Stack

BROKERS: tuple[dict[str, Any], ...] = (
    {"name": "Frankfurt", "host": "mqtt-fra.example.com", "region": "eu-central"},
    {"name": "Dublin", "host": "mqtt-dub.example.com", "region": "eu-west"},
    {"name": "Ohio", "host": "mqtt-ohio.example.com", "region": "us-east"},
    {"name": "Hall 4", "host": "10.4.0.12", "protocol": "mqtt", "port": 1883},
    {"name": "Old cloud", "host": "mqtt.example.net", "is_active": False},
)
# The ids of fleets, their names, their brokers, and how many devices they have.
FLEETS = (
    ("harbour", "Harbour sensors", "Dublin", 24),
    ("hall-4", "Hall 4", "Hall 4", 18),
    ("rooftops", "Rooftop solar", None, 30),
)
TYPES = ("raspberry-pi-4", "esp32", "gateway-2")
# The key of this fleet is nearly used up.
FULL = "hall-4"
# Of so many minutes, two have refusals for this reason.
REFUSALS = (
    (DeviceUnauthenticated.reason, 5),
    (ProvisioningKeyUsedUp.reason, 11),
    (UuidNotAllowed.reason, 17),
)
MINUTES = 60


async def fill(stack: Stack) -> None:
    """Makes brokers, certificates, fleets, keys, devices and a rollout, as an admin does, and the
    counts of an hour.
    """
    created: dict[str, int] = {}
    ca = {"name": "Example CA 2025", "kind": "ca", "pem": _ca("Example CA 2025", days=800)}
    certificate = await _ask(stack, "POST", "/certificates", ca)
    ending = {"name": "Plant CA", "kind": "ca", "pem": _ca("Plant CA", days=20)}
    ends = await _ask(stack, "POST", "/certificates", ending)
    for broker in BROKERS:
        body = {"protocol": "mqtts", "port": 8883, **broker}
        if body["protocol"] == "mqtts":
            used = ends if broker["name"] == "Dublin" else certificate
            body["ca_certificate_id"] = used["id"]
        created[broker["name"]] = (await _ask(stack, "POST", "/brokers", body))["id"]
    await _ask(stack, "POST", f"/brokers/{created['Frankfurt']}/default")
    members = [{"broker_id": created[name], "weight": 60} for name in ("Frankfurt", "Dublin")]
    pool = await _ask(stack, "POST", "/pools", {"name": "Europe", "members": members})
    await _ask(stack, "POST", f"/pools/{pool['id']}/rebalance", {"percent": 10})
    central = {"id": "eu-central", "latitude": 50.1, "longitude": 8.7, "pool_id": pool["id"]}
    await _ask(stack, "POST", "/regions", central)
    keys: dict[str, str] = {}
    for fleet, name, of_broker, devices in FLEETS:
        fields = {"mqtt_broker_id": created[of_broker]} if of_broker else {}
        await _ask(stack, "POST", "/fleets", {"id": fleet, "name": name, **fields})
        key = {"fleet_id": fleet, "description": f"Installers, {name}", "max_devices": devices + 1}
        if fleet != FULL:
            key["max_devices"] = devices * 2
        keys[fleet] = (await _ask(stack, "POST", "/provisioning-keys", key))["key"]
    await asyncio.gather(
        *(
            _register(stack, keys[fleet], f"{fleet}-{number:03}", TYPES[number % len(TYPES)])
            for fleet, _, _, devices in FLEETS
            for number in range(devices)
        )
    )
    pin = {"mqtt_broker_id": created["Ohio"]}
    await _ask(stack, "PATCH", "/devices/rooftops-007", pin)
    wave = {"broker_id": created["Dublin"], "percent": 25}
    await _ask(stack, "PUT", "/fleets/rooftops/rollout", wave)
    await _ask(stack, "PATCH", f"/brokers/{created['Ohio']}", {"keep_alive": 90})
    expected = {"uuid": "harbour-100", "fleet_id": "harbour"}
    await _ask(stack, "POST", "/expected-devices", expected)
    await _count_an_hour(stack)


async def _count_an_hour(stack: Stack) -> None:
    """Devices that register again, and refusals, as the registry counts them."""
    counts = Counts()
    now = datetime.now(UTC).timestamp()
    for minute in range(1, MINUTES + 1):
        at = now - 60 * minute
        for number, (fleet, _, _, devices) in enumerate(FLEETS):
            wave = 1 + 0.4 * math.sin(minute / 9 + number) + 0.15 * math.sin(minute * 2.3)
            counts.registered({(fleet, False): round(devices * wave)}, 0.004, at)
            counts.registered({(fleet, False): 1}, 0.020, at)
        for reason, every in REFUSALS:
            if minute % every < 2:
                counts.refused(reason, FULL, at, 1 + minute % 3)
    pool = pool_of(stack.database.url("mooring_registry"))
    async with pool:
        await store.add(pool, counts.take())


async def _ask(stack: Stack, method: str, path: str, body: Any = None) -> Any:
    answer = await stack.admin(method, path, json=body)
    assert answer.is_success, (method, path, answer.text)
    return answer.json()


async def _register(stack: Stack, key: str, uuid: str, device_type: str) -> None:
    answer = await stack.register(
        uuid, key=key, deviceName=uuid.replace("-", " ").capitalize(), deviceType=device_type
    )
    assert answer.is_success, answer.text


def _ca(name: str, *, days: int) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=345))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
