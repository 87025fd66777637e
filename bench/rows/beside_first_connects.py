"""Whether devices that wait for a Mosquitto slow down devices of other brokers.

In the yardstick as many devices use a broker that asks Mooring, so none waits. Five per second are
few, because the worker and Mosquitto run on the same cores and use about a tenth of them. If
registrations waited for Mosquitto, which needs about 100 ms for each device, the rate would halve.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from bench import wrk
from bench.http import ask
from bench.managed_mosquitto import empty_mosquitto, registered
from bench.measures import Figure, Findings, Goal, Turns, per_s
from bench.stage import Services, Stage
from local import interrupts

CONNECTIONS = 64
ARRIVE_PER_S = 5
ROUNDS = 5
SECONDS = 5.0
WARM_UP_S = 1.0
OTHER = {"name": "Other", "protocol": "mqtt", "host": "mqtt.example.com", "port": 1883}


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    turns = Turns()
    with (
        stage.database("beside") as database,
        stage.services(database) as services,
        empty_mosquitto() as broker,
    ):
        broker.used_as_default(services)
        of_mosquitto = services.provisioning_key
        of_other = _key_for_another_broker(services)
        measured = _rate(replace(services, provisioning_key=of_other))
        measured(WARM_UP_S, of_mosquitto)
        for _ in range(ROUNDS):
            turns.yardstick.append(measured(SECONDS, of_other))
            turns.ours.append(measured(SECONDS, of_mosquitto))
    return Findings(
        (
            Figure(
                f"registrations, {CONNECTIONS} connections, while {ARRIVE_PER_S} devices a second"
                f" come to a managed Mosquitto {broker.version}",
                per_s(median(turns.ours)),
                f"come to a broker that asks: {per_s(median(turns.yardstick))}",
                turns.ratio,
                goal=Goal(0.85, 0.95),
            ),
        )
    )


def _key_for_another_broker(services: Services) -> str:
    """The provisioning key of a fleet whose broker asks Mooring."""
    port, token = services.gateway_port, services.admin_token
    broker = ask(port, "POST", "/api/v1/brokers", token, OTHER)
    fleet = {"id": "other", "name": "Other", "mqtt_broker_id": broker["id"]}
    ask(port, "POST", "/api/v1/fleets", token, fleet)
    made = ask(port, "POST", "/api/v1/provisioning-keys", token, {"fleet_id": "other"})
    return str(made["key"])


def _rate(services: Services) -> Callable[[float, str], float]:
    """Registers for so many seconds while devices with the given key arrive; returns a rate."""

    def rate(seconds: float, arriving_key: str) -> float:
        services.database.checkpoint()
        seed = str(secrets.randbelow(2**31 - 64))
        with wrk.run(
            *("register.lua", services.gateway_url, services.provisioning_key, seed),
            connections=CONNECTIONS,
            seconds=seconds,
        ) as load:
            with interrupts.at_once():
                asyncio.run(_arrivals(services, arriving_key, seconds))
            return wrk.report_in(load.output(seconds), wrk.WrkReport).good_per_s

    return rate


async def _arrivals(services: Services, key: str, seconds: float) -> None:
    """Begins registrations at a constant rate, whether earlier ones were answered or not."""
    async with asyncio.TaskGroup() as arriving:
        for _ in range(int(seconds * ARRIVE_PER_S)):
            arriving.create_task(registered(services, secrets.token_hex(16), key))
            await asyncio.sleep(1 / ARRIVE_PER_S)
