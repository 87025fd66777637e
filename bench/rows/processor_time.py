"""The processor time of a registration, in all processes of Mooring and in PostgreSQL.

Other work on the machine changes it little, so figures of different days can be compared.
"""

from collections import defaultdict
from statistics import median

from bench import processor, wrk
from bench.measures import Figure, Findings, Goal
from bench.stage import Services, Stage

CONNECTIONS = 256
ROUNDS = 3
SECONDS = 5.0
WARM_UP_S = 2.0
POSTGRES = "PostgreSQL"


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    spent: dict[str, list[float]] = defaultdict(list)
    with stage.database("processor_time") as database, stage.services(database) as services:
        pids = {**services.pids, POSTGRES: stage.server.pid}
        wrk.registrations(services, CONNECTIONS, WARM_UP_S)
        for _ in range(ROUNDS):
            for name, took_us in _round(services, pids).items():
                spent[name].append(took_us)
    each = {name: median(values) for name, values in spent.items()}
    total = sum(each.values())
    parts = ", ".join(f"{name} {took:.0f}" for name, took in each.items() if took >= 0.5)
    return Findings(
        (
            Figure(
                f"processor time of a registration, {CONNECTIONS} connections: {parts} µs",
                f"{total:.0f} µs",
                value=total,
                unit="µs",
                goal=Goal(300, 100, at_most=True),
            ),
        )
    )


def _round(services: Services, pids: dict[str, int]) -> dict[str, float]:
    """Microseconds per device, by process."""
    services.database.checkpoint()
    before = {name: processor.used_s([pid]) for name, pid in pids.items()}
    report = wrk.registrations(services, CONNECTIONS, SECONDS)
    return {
        name: (processor.used_s([pid]) - before[name]) / report.good * 1e6
        for name, pid in pids.items()
    }
