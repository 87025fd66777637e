"""The yardstick of throughput: PostgreSQL with one transaction for each device, and no service."""

from bench import pgbench
from bench.measures import Figure, Findings, Point, ms, per_s
from bench.stage import Stage

CLIENTS = (1, 4, 16, 64)
CROWDED = CLIENTS[-1]
SECONDS = 5.0
CURVE = "PostgreSQL, one transaction each (pgbench)"


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    measured = stage.once(points)
    return Findings(
        tuple(
            Figure(
                f"pgbench, one transaction a device, {point.connections} clients",
                f"{per_s(point.per_s)}, p99 {ms(point.p99_s)}",
            )
            for point in measured
        ),
        ((CURVE, measured),),
    )


def points(stage: Stage) -> tuple[Point, ...]:
    """One point for each number of clients."""
    return tuple(point(stage, clients) for clients in CLIENTS)


def best_clients(stage: Stage) -> int:
    """The number of clients with the highest throughput."""
    return max(stage.once(points), key=lambda point: point.per_s).connections


def point(stage: Stage, clients: int) -> Point:
    """The point of so many clients, from an empty table."""
    with stage.database("pgbench") as database:
        report = pgbench.run(
            *(database, "device.sql"), clients=clients, seconds=SECONDS, key_hash=stage.key_hash
        )
    return Point(clients, report.per_s, report.p99_s)
