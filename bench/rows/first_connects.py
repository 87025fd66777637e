"""How many devices may register at once at an empty Mosquitto that holds all when they are
answered.

An answer waits for five seconds at most, so of too many devices some must retry.
"""

import asyncio
import time

from bench.managed_mosquitto import LONGEST_S, POLL_S, empty_mosquitto, registered
from bench.measures import Figure, Findings, Goal
from bench.stage import Database, Services, Stage
from local import interrupts

DEVICES = (200, 500, 1_000)
# With so many devices, none may be answered before the broker holds it.
ALL_OF = 200


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    return Findings(tuple(_figure(stage, devices) for devices in DEVICES))


def _figure(stage: Stage, devices: int) -> Figure:
    with (
        stage.database("first_connects") as database,
        stage.services(database) as services,
        empty_mosquitto() as broker,
    ):
        broker.used_as_default(services)
        begun = time.monotonic()
        with interrupts.at_once():
            early = asyncio.run(_answered_early(services, devices))
        held = _held(database, devices)
        held_s = time.monotonic() - begun
    has_goal = devices <= ALL_OF
    return Figure(
        f"of {devices:,} devices at once at an empty Mosquitto {broker.version}, answered before it"
        " holds them",
        f"{early:,}; it holds {held:,} after {held_s:.1f} s",
        value=early if has_goal else None,
        goal=Goal(0, 0, at_most=True) if has_goal else None,
    )


async def _answered_early(services: Services, devices: int) -> int:
    key = services.provisioning_key
    answers = await asyncio.gather(
        *(registered(services, f"d{number}", key) for number in range(devices))
    )
    return sum(answer["mqtt"].get("ready") is False for answer in answers)


def _held(database: Database, devices: int) -> int:
    """The number of clients that the broker holds, once it holds all or the time is over."""
    deadline = time.monotonic() + LONGEST_S
    while True:
        held = database.number("SELECT count(*) FROM driven_clients")
        if held >= devices or time.monotonic() > deadline:
            return held
        time.sleep(POLL_S)
