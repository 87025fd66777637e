"""Devices that register again with the same uuid and keys, against new ones."""

import secrets

from bench import growth, wrk
from bench.errors import CannotMeasure
from bench.measures import Findings
from bench.stage import Services, Stage

# Much more than a batch, so that a batch has different devices.
DEVICES = 10_000
LONGEST_S = 30.0


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    with stage.database("again") as database, stage.services(database) as services:
        seed = registered(services)

        def again(seconds: float) -> float:
            before = database.devices()
            database.checkpoint()
            with wrk.run(
                *("again.lua", services.gateway_url, services.provisioning_key),
                *(seed, str(DEVICES)),
                connections=growth.CONNECTIONS,
                seconds=seconds,
            ) as load:
                report = wrk.report_in(load.output(seconds), wrk.WrkReport)
            if database.devices() != before or report.refused:
                raise CannotMeasure("devices that registered again were made anew, or refused")
            return report.good_per_s

        turns = growth.compared(again, wrk.rate_of(services, growth.CONNECTIONS))
    return Findings((growth.figure("of devices that registered before", "of new ones", turns),))


def registered(services: Services) -> str:
    """The seed of `DEVICES` devices, which are all registered."""
    seed = str(secrets.randbelow(2**31))
    with wrk.run(
        *("storm.lua", services.gateway_url, services.provisioning_key, seed, str(DEVICES)),
        connections=growth.CONNECTIONS,
        seconds=LONGEST_S,
    ) as load:
        wrk.report_in(load.output(LONGEST_S), wrk.WrkReport)
    if services.database.devices() != DEVICES:
        raise CannotMeasure(f"not all of {DEVICES:,} devices were registered")
    return seed
