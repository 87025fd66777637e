"""Registrations per second over HTTP, from one connection to a thousand."""

from collections.abc import Sequence
from statistics import median

from bench import wrk
from bench.measures import Figure, Findings, Goal, Point, Turns, ms, per_s, zero
from bench.rows import pgbench
from bench.stage import Services, Stage
from bench.wrk import WrkReport

FEW = (1, 4, 16)
# Rows with a goal are measured in turns with their yardstick.
MANY = (64, 256, 1024)
ROUNDS = 3
SECONDS = 5.0
WARM_UP_S = 2.0
CURVE = "Mooring, over HTTP (wrk)"

# The yardstick is pgbench with its best number of clients.
AGAINST_BEST = {64: Goal(3, 5), 256: Goal(4, 8), 1024: Goal(4, 10)}
AGAINST_CROWDED = Goal(20, 35)
LONGEST_AT_256_S = 0.3


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    best_clients = pgbench.best_clients(stage)
    best, crowded = [], []
    reports: dict[int, list[WrkReport]] = {}
    with stage.database("connections") as database, stage.services(database) as services:
        for connections in FEW:
            reports[connections] = [_report(services, connections)]
        for _ in range(ROUNDS):
            best.append(pgbench.point(stage, best_clients).per_s)
            crowded.append(pgbench.point(stage, pgbench.CROWDED).per_s)
            for connections in MANY:
                reports.setdefault(connections, []).append(_report(services, connections))
    rates = {many: [report.good_per_s for report in reports[many]] for many in MANY}
    slowest = _point(256, reports[256]).p99_s
    return Findings(
        (
            *(_described(_point(*pair)) for pair in reports.items()),
            *(
                _compared(many, Turns(rates[many], best), best_clients, goal)
                for many, goal in AGAINST_BEST.items()
            ),
            _compared(64, Turns(rates[64], crowded), pgbench.CROWDED, AGAINST_CROWDED),
            Figure(
                "p99 with 256 connections",
                ms(slowest),
                value=slowest * 1e3,
                unit="ms",
                goal=Goal(LONGEST_AT_256_S * 1e3, LONGEST_AT_256_S * 1e3, at_most=True),
            ),
            zero(
                "errors, 1 to 1,024 connections",
                sum(report.errors for each in reports.values() for report in each),
            ),
        ),
        ((CURVE, tuple(_point(*pair) for pair in reports.items())),),
    )


def _report(services: Services, connections: int) -> WrkReport:
    services.database.forget_devices()
    wrk.registrations(services, connections, WARM_UP_S)
    return wrk.registrations(services, connections, SECONDS)


def _point(connections: int, reports: Sequence[WrkReport]) -> Point:
    return Point(
        connections,
        median(report.good_per_s for report in reports),
        median(report.p99_s for report in reports),
    )


def _described(point: Point) -> Figure:
    return Figure(
        f"registrations, {point.connections:,} connections",
        f"{per_s(point.per_s)}, p99 {ms(point.p99_s)}",
    )


def _compared(connections: int, turns: Turns, clients: int, goal: Goal) -> Figure:
    return Figure(
        f"registrations, {connections:,} connections",
        per_s(median(turns.ours)),
        f"pgbench, {clients} clients: {per_s(median(turns.yardstick))}",
        turns.ratio,
        goal=goal,
    )
