"""Whether ten million devices slow down registrations, and how much disk a device takes.

The index of uuids is what slows them down: it has so many pages that a device rarely meets one that
was changed lately, and PostgreSQL logs a whole page when it changes for the first time after a
checkpoint. So this is measured twice: after a checkpoint, and when most pages have been logged. The
second is the permanent rate if `max_wal_size` is as large as docs/scaling-the-database.md
recommends.
"""

from statistics import median

from bench import crowd, wrk
from bench.measures import Figure, Findings, Goal, Turns, per_s
from bench.rows.size import CONNECTIONS, SECONDS, WARM_UP_S
from bench.stage import Services, Stage

# Enough to show a difference of five percent.
ROUNDS = 7
# So many new devices change nearly all of the hundred thousand pages of the index.
LOGGED_DEVICES = 400_000


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    with (
        stage.configured("max_wal_size", "8GB"),
        stage.database("many") as many,
        stage.database("empty") as empty,
    ):
        crowd.fill_quickly(many, crowd.MANY_DEVICES)
        on_disk = many.number("SELECT pg_total_relation_size('devices')") / crowd.MANY_DEVICES
        in_indexes = many.number("SELECT pg_indexes_size('devices')") / crowd.MANY_DEVICES
        with stage.services(empty) as with_none, stage.services(many) as with_many:
            for services in (with_none, with_many):
                wrk.registrations(services, CONNECTIONS, WARM_UP_S)
            at_first = _compared(with_none, with_many, is_first=True)
            crowd.add(many, many.devices(), LOGGED_DEVICES)
            later = _compared(with_none, with_many, is_first=False)
    what = f"registrations with {crowd.MANY_DEVICES:,} devices, {CONNECTIONS} connections"
    return Findings(
        (
            _figure(f"{what}, after a checkpoint", at_first),
            _figure(what, later, Goal(0.95, 1.0)),
            Figure(
                "bytes on disk a device",
                f"{on_disk:,.0f}, {in_indexes:,.0f} of them in indexes",
            ),
        )
    )


def _compared(with_none: Services, with_many: Services, *, is_first: bool) -> Turns:
    """Measures in turns. If most changes are the first of their page, each turn begins after a
    checkpoint.
    """
    turns = Turns()
    for _ in range(ROUNDS):
        if is_first:
            with_none.database.forget_devices()
        for services, rates in ((with_none, turns.yardstick), (with_many, turns.ours)):
            if is_first:
                services.database.checkpoint()
            rates.append(wrk.registrations(services, CONNECTIONS, SECONDS).good_per_s)
    return turns


def _figure(what: str, turns: Turns, goal: Goal | None = None) -> Figure:
    return Figure(
        what,
        per_s(median(turns.ours)),
        f"with an empty table: {per_s(median(turns.yardstick))}",
        turns.ratio,
        goal=goal,
    )
