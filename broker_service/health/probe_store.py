"""The results of probes in the database. They are not announced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.health.gathered import Sum
from broker_service.health.states import Result
from broker_service.tables import broker_probes, broker_state_history
from chassis.database import writing
from domain.pools import State

RESULTS_KEPT = timedelta(days=7)
HISTORY_KEPT = timedelta(days=90)
# So that one deletion does not take long.
MAX_FORGOTTEN = 20_000

# Brokers may be deleted at the same time; their results are not written then.
LAST = sa.text("""
INSERT INTO broker_last_probes AS kept
    (broker_id, vantage, probed_at, state, reason, detail, latency_ms)
SELECT broker.id, :vantage, clock_timestamp(), given.state, given.reason, given.detail,
       given.latency_ms
FROM unnest(
    CAST(:ids AS integer[]), CAST(:states AS text[]), CAST(:reasons AS text[]),
    CAST(:details AS text[]), CAST(:latencies AS real[])
) AS given (id, state, reason, detail, latency_ms)
JOIN mqtt_broker_config AS broker ON broker.id = given.id
ORDER BY broker.id
FOR KEY SHARE OF broker
ON CONFLICT (broker_id, vantage) DO UPDATE
SET probed_at = excluded.probed_at, state = excluded.state, reason = excluded.reason,
    detail = excluded.detail, latency_ms = coalesce(excluded.latency_ms, kept.latency_ms)
""")
PERIODS = sa.text("""
INSERT INTO broker_probes AS kept (broker_id, vantage, begins_at, probes, failures, round_trips,
                                   mean_latency_ms, max_latency_ms, reason)
SELECT broker.id, :vantage, date_bin('5 minutes', clock_timestamp(), 'epoch'), given.probes,
       given.failures, given.round_trips, given.mean, given.max, given.reason
FROM unnest(
    CAST(:ids AS integer[]), CAST(:probes AS integer[]), CAST(:failures AS integer[]),
    CAST(:round_trips AS integer[]), CAST(:means AS real[]), CAST(:maxima AS real[]),
    CAST(:reasons AS text[])
) AS given (id, probes, failures, round_trips, mean, max, reason)
JOIN mqtt_broker_config AS broker ON broker.id = given.id
ORDER BY broker.id
FOR KEY SHARE OF broker
ON CONFLICT (broker_id, vantage, begins_at) DO UPDATE
SET probes = kept.probes + excluded.probes,
    failures = kept.failures + excluded.failures,
    round_trips = kept.round_trips + excluded.round_trips,
    mean_latency_ms = (
        coalesce(kept.mean_latency_ms, 0) * kept.round_trips
        + coalesce(excluded.mean_latency_ms, 0) * excluded.round_trips
    ) / nullif(kept.round_trips + excluded.round_trips, 0),
    max_latency_ms = greatest(kept.max_latency_ms, excluded.max_latency_ms),
    reason = coalesce(nullif(excluded.reason, ''), kept.reason)
""")
ELSEWHERE = sa.text("""
SELECT broker_id, state, reason, detail FROM broker_last_probes
WHERE vantage <> :vantage AND probed_at > clock_timestamp() - make_interval(secs => :within_s)
""")


@dataclass(frozen=True, slots=True)
class Written:
    """What is written about one broker: the sums since the last time, and what the last results
    say, or None if more results are needed.
    """

    sums: Sum
    opinion: Result | None


async def write_results(
    connection: AsyncConnection, vantage: str, results: Mapping[int, Written]
) -> None:
    """Adds the results from one place, by broker."""
    if not results:
        return
    opinions = {
        broker_id: written.opinion
        for broker_id, written in results.items()
        if written.opinion is not None
    }
    if opinions:
        values = {
            "vantage": vantage,
            "ids": list(opinions),
            "states": [opinion.state.value for opinion in opinions.values()],
            "reasons": [opinion.reason for opinion in opinions.values()],
            "details": [opinion.detail for opinion in opinions.values()],
            "latencies": [opinion.latency_ms for opinion in opinions.values()],
        }
        await connection.execute(LAST, values)
    sums = [written.sums for written in results.values()]
    values = {
        "vantage": vantage,
        "ids": list(results),
        "probes": [one.probes for one in sums],
        "failures": [one.failures for one in sums],
        "round_trips": [len(one.latencies_ms) for one in sums],
        "means": [_mean(one.latencies_ms) for one in sums],
        "maxima": [max(one.latencies_ms, default=None) for one in sums],
        "reasons": [one.reason for one in sums],
    }
    await connection.execute(PERIODS, values)


async def opinions_elsewhere(
    connection: AsyncConnection, vantage: str, within_s: float
) -> dict[int, list[Result]]:
    """What other places than `vantage` reported within that time, by broker."""
    rows = await connection.execute(ELSEWHERE, {"vantage": vantage, "within_s": within_s})
    found: dict[int, list[Result]] = {}
    for row in rows:
        result = Result(State(row.state), row.reason, row.detail)
        found.setdefault(row.broker_id, []).append(result)
    return found


async def forget(engine: AsyncEngine) -> int:
    """Deletes old results and old changes of states; returns how many. Raises `Unavailable`."""
    deleted = 0
    for key, moment, kept in (
        (sa.tuple_(*broker_probes.primary_key), broker_probes.c.begins_at, RESULTS_KEPT),
        (broker_state_history.c.id, broker_state_history.c.changed_at, HISTORY_KEPT),
    ):
        old = (
            sa.select(*(key.clauses if isinstance(key, sa.Tuple) else [key]))
            .where(moment < sa.func.clock_timestamp() - kept)
            .limit(MAX_FORGOTTEN)
        )
        async with writing(engine) as connection:
            ended = await connection.execute(sa.delete(moment.table).where(key.in_(old)))
            deleted += ended.rowcount
    return deleted


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
