"""`python -m tests.measure_mosquitto`: the cost of dynamic security, by version and by devices.

Each Mosquitto starts with a file that contains the devices, as the command `fill` writes it. Then
the reconciler's client adds devices, one at a time and many at once, and ends the access of some.
"""

import asyncio
import time
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from registry_service.admission.reconciler.dynamic_security import LIMITS, Actual, Wanted
from registry_service.admission.reconciler.mosquitto_client import DynamicSecurity
from registry_service.admission.reconciler.planning import Plan, plan
from tests.broker_versions import MOSQUITTO, Version
from tests.dynamic_security import DynamicMosquitto, device, filled

DEVICES = (100, 1_000, 4_000)
ALONE, TOGETHER = 9, 60
HEADINGS = (
    *("Mosquitto", "devices", "its file", "it starts in", "one more device"),
    *(f"{TOGETHER} more at once, a device", "a device disabled"),
)


def creation(new: Sequence[Wanted]) -> Plan:
    """The commands that create devices at a broker that holds others."""
    commands = plan(new, Actual({}, {})).commands
    return Plan(tuple(one for one in commands if one.about != LIMITS))


async def took_ms(call: Awaitable[object]) -> float:
    begun = time.perf_counter()
    await call
    return 1_000 * (time.perf_counter() - begun)


async def measured(version: Version, devices: int, folder: Path) -> Sequence[str]:
    """The cells of one row."""
    text = filled(device(f"device-{number}") for number in range(devices))
    late = [device(f"late-{number}") for number in range(ALONE + TOGETHER)]
    begun = time.perf_counter()
    with DynamicMosquitto(folder, text, version=version) as broker:
        started_s = time.perf_counter() - begun
        security = DynamicSecurity(broker.settings)
        alone = [await took_ms(security.apply(creation([one]))) for one in late[:ALONE]]
        together = await took_ms(security.apply(creation(late[ALONE:])))
        disabled = [await took_ms(security.disable([one.username])) for one in late[:ALONE]]
        size = broker.file.stat().st_size
    return (
        *(version.number, f"{devices:,}", f"{size / 1e6:.1f} MB", f"{started_s:.2f} s"),
        *(f"{median(alone):.0f} ms", f"{together / TOGETHER:.1f} ms", f"{median(disabled):.0f} ms"),
    )


def rows() -> Iterator[Sequence[str]]:
    yield HEADINGS
    yield ["---"] * len(HEADINGS)
    for devices in DEVICES:
        for version in MOSQUITTO:
            with TemporaryDirectory() as folder:
                yield asyncio.run(measured(version, devices, Path(folder)))


if __name__ == "__main__":
    for row in rows():
        print("|", " | ".join(row), "|", flush=True)  # noqa: T201 - it is a command
