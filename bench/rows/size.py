"""Whether a million devices slow down registrations."""

from statistics import median

from bench import crowd, wrk
from bench.measures import Figure, Findings, Goal, Turns, per_s
from bench.stage import Stage

CONNECTIONS = 64
ROUNDS = 3
SECONDS = 4.0
WARM_UP_S = 2.0


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    million = crowd.database(stage)
    with (
        stage.database("empty") as empty,
        stage.services(empty) as with_none,
        stage.services(million) as with_million,
    ):
        turns = Turns()
        for services in (with_none, with_million):
            wrk.registrations(services, CONNECTIONS, WARM_UP_S)
        for _ in range(ROUNDS):
            empty.forget_devices()
            # Both begin after a checkpoint, so both log whole pages at first.
            for services, rates in ((with_none, turns.yardstick), (with_million, turns.ours)):
                services.database.checkpoint()
                rates.append(wrk.registrations(services, CONNECTIONS, SECONDS).good_per_s)
    return Findings(
        (
            Figure(
                f"registrations with {crowd.DEVICES:,} devices, {CONNECTIONS} connections",
                per_s(median(turns.ours)),
                f"with an empty table: {per_s(median(turns.yardstick))}",
                turns.ratio,
                goal=Goal(0.9, 1.0),
            ),
        )
    )
