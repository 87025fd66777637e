"""The latency of a single registration, against its unavoidable parts.

These are two gRPC calls, the gateway's and the registry's, and one durable commit.
"""

from statistics import median

from bench import constant, pgbench, wrk
from bench.measures import Figure, Findings, Goal, Turns, ms
from bench.programs import output_of
from bench.stage import Stage

ROUNDS = 3
SECONDS = 3.0
WARM_UP_S = 2.0
METHOD = "/bench.Empty/Call"


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    turns = Turns()
    calls, commits = [], []
    with (
        stage.database("idle") as database,
        stage.services(database) as services,
        constant.serving(METHOD, b"") as address,
    ):
        wrk.registrations(services, 1, WARM_UP_S)
        for _ in range(ROUNDS):
            turns.ours.append(wrk.registrations(services, 1, SECONDS).p50_s)
            calls.append(_empty_call_s(address))
            commits.append(pgbench.run(database, "commit.sql", clients=1, seconds=SECONDS).p50_s)
            turns.yardstick.append(2 * calls[-1] + commits[-1])
    return Findings(
        (
            Figure(
                "p50 of a registration that comes alone",
                ms(median(turns.ours)),
                f"2 empty gRPC calls of {ms(median(calls))} and a commit of {ms(median(commits))}",
                turns.ratio,
                goal=Goal(2.5, 1.5, at_most=True),
            ),
        )
    )


def _empty_call_s(address: str) -> float:
    arguments = ("-m", "bench.empty_call", address, METHOD, f"{SECONDS:.0f}")
    return float(output_of("python", *arguments, within_s=SECONDS))
