"""Resolutions and registrations with a default pool of ten brokers, against a default broker.

Both are measured in turns on the same services; the pool is switched on and off by SQL.
"""

from collections.abc import Callable
from statistics import median

import grpc
from mooring.broker.v1 import resolution_pb2 as pb

from bench import crowd, h2load, resolution, wrk
from bench.errors import CannotMeasure
from bench.measures import Figure, Findings, Goal, Turns, per_s
from bench.stage import Database, Services, Stage

MEMBERS = 10
IN_FLIGHT = 64
PROCESSES = 16
UUIDS = 1_000
CALLS = 4
CONNECTIONS = 64
ROUNDS = 3
SECONDS = 3.0
WARM_UP_S = 1.0
PATIENCE_S = 10.0

# Like the default broker, with hosts of equal length, so that all answers have equal sizes.
BROKERS = """
INSERT INTO mqtt_broker_config (name, protocol, use_tls, host, port, ca_certificate_id)
SELECT 'member ' || number, protocol, use_tls, 'member-' || number || '.example', port,
       ca_certificate_id
FROM mqtt_broker_config CROSS JOIN generate_series(0, %s) AS number WHERE is_default
"""
POOL = "INSERT INTO pools (name) VALUES ('all')"
JOIN = """
INSERT INTO pool_members (pool_id, broker_id)
SELECT pools.id, broker.id
FROM pools CROSS JOIN mqtt_broker_config AS broker WHERE starts_with(broker.name, 'member ')
"""
SWITCH = "UPDATE pools SET is_default = %s"


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    figures = []
    database = crowd.database(stage)
    with stage.services(database) as services:
        _make(database)
        for what, rate in (
            (f"ResolveBroker, {IN_FLIGHT} in flight", _one(services)),
            (f"ResolveBrokers, {UUIDS:,} a call", _many(services)),
        ):
            figures.append(_compared(what, database, rate))
        database.execute(SWITCH, False)
    with stage.database("pools") as own, stage.services(own) as services:
        _make(own)

        def registrations(seconds: float) -> float:
            own.forget_devices()
            return wrk.registrations(services, CONNECTIONS, seconds).good_per_s

        figures.append(_compared(f"registrations, {CONNECTIONS} connections", own, registrations))
    return Findings(tuple(figures))


def _make(database: Database) -> None:
    database.execute(BROKERS, MEMBERS - 1)
    database.execute(POOL)
    database.execute(JOIN)


def _compared(what: str, database: Database, rate: Callable[[float], float]) -> Figure:
    turns = Turns()
    for number in range(ROUNDS + 1):
        for is_on, rates in ((True, turns.ours), (False, turns.yardstick)):
            database.execute(SWITCH, is_on)
            rate(WARM_UP_S)
            if number:
                rates.append(rate(SECONDS))
    return Figure(
        f"{what}, a pool of {MEMBERS} brokers",
        per_s(median(turns.ours)),
        f"a default broker: {per_s(median(turns.yardstick))}",
        turns.ratio,
        goal=Goal(0.9, 1.0),
    )


def _one(services: Services) -> Callable[[float], float]:
    call = resolution.call(services, resolution.ONE)

    def rate(seconds: float) -> float:
        questions = resolution.questions(PROCESSES)
        length = _length(call, questions)
        return h2load.rate(
            call, questions, length, in_flight=IN_FLIGHT // PROCESSES, seconds=seconds
        )

    return rate


def _many(services: Services) -> Callable[[float], float]:
    call = resolution.call(services, resolution.MANY)

    def rate(seconds: float) -> float:
        questions = resolution.questions(CALLS, UUIDS)
        length = _length(call, questions)
        return UUIDS * h2load.rate(call, questions, length, in_flight=1, seconds=seconds)

    return rate


def _length(call: h2load.Call, questions: list[bytes]) -> int:
    """The length of the answers. Raises `CannotMeasure` if they are wrong or differ in length."""
    with grpc.insecure_channel(call.address) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
        answers = [ask(one, timeout=PATIENCE_S, metadata=call.metadata) for one in questions]
    if len({len(answer) for answer in answers}) != 1:
        raise CannotMeasure(f"the answers of {call.method} have different lengths")
    if call.method == resolution.ONE:
        known = all(pb.ResolveBrokerResponse.FromString(one).resolution.known for one in answers)
    else:
        known = all(
            outcome.resolution.known
            for one in answers
            for outcome in pb.ResolveBrokersResponse.FromString(one).outcomes
        )
    if not known:
        raise CannotMeasure(f"{call.method} is answered wrongly")
    return len(answers[0])
