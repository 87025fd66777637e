"""`ResolveBroker` for one of a million devices, against a server that answers a constant.

Sixteen h2load processes with one connection each ask for one device each, and for others in each
round, so that concurrent calls are about different devices.
"""

from statistics import median

from bench import constant, crowd, h2load, resolution
from bench.measures import Figure, Findings, Goal, Turns, per_s
from bench.stage import Stage

IN_FLIGHT = (64, 256)
PROCESSES = 16
ROUNDS = 3
SECONDS = 3.0
WARM_UP_S = 1.0


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    figures = []
    with stage.services(crowd.database(stage)) as services:
        call = resolution.call(services, resolution.ONE)
        answer = resolution.answer(call, resolution.questions(PROCESSES))
        with constant.serving(resolution.ONE, answer) as address:
            # The same request with the same headers.
            least = h2load.Call(address, resolution.ONE, call.metadata)
            for in_flight in IN_FLIGHT:
                turns = Turns()
                for number in range(ROUNDS + 1):
                    questions = resolution.questions(PROCESSES)
                    resolution.answer(call, questions)
                    for one, rates in ((call, turns.ours), (least, turns.yardstick)):
                        rate = h2load.rate(
                            *(one, questions, len(answer)),
                            in_flight=in_flight // PROCESSES,
                            seconds=SECONDS if number else WARM_UP_S,
                        )
                        if number:
                            rates.append(rate)
                figures.append(
                    Figure(
                        f"ResolveBroker, {crowd.DEVICES:,} devices, {in_flight} in flight",
                        per_s(median(turns.ours)),
                        f"a server that answers a constant: {per_s(median(turns.yardstick))}",
                        turns.ratio,
                        goal=Goal(0.85, 0.95),
                    )
                )
    return Findings(tuple(figures))
