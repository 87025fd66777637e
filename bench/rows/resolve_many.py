"""`ResolveBrokers` for a thousand devices of a million at a time."""

from statistics import median

from bench import crowd, h2load, resolution
from bench.measures import Figure, Findings, Goal, per_s
from bench.stage import Stage

UUIDS = 1_000
# Calls in flight, each about other devices.
CALLS = 4
ROUNDS = 3
SECONDS = 3.0


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    rates = []
    with stage.services(crowd.database(stage)) as services:
        call = resolution.call(services, resolution.MANY)
        for _ in range(ROUNDS):
            questions = resolution.questions(CALLS, UUIDS)
            answer = resolution.answer(call, questions)
            calls_per_s = h2load.rate(call, questions, len(answer), in_flight=1, seconds=SECONDS)
            rates.append(calls_per_s * UUIDS)
    rate = median(rates)
    return Findings(
        (
            Figure(
                f"devices by ResolveBrokers, {UUIDS:,} a call, {CALLS} in flight",
                per_s(rate),
                value=rate,
                unit="/s",
                goal=Goal(50_000, 150_000),
            ),
        )
    )
