"""Questions of brokers about connecting clients: the same device again, or another one each time.

The yardstick of the former is a server that does nothing; that of the latter runs a query for each
request.
"""

import hashlib
import secrets
from collections.abc import Callable
from functools import partial
from itertools import count
from statistics import median

from bench import http_yardstick, wrk
from bench.errors import CannotMeasure
from bench.measures import Figure, Findings, Goal, Turns, ms, per_s, zero
from bench.programs import HERE
from bench.stage import Stage

DEVICES = 600_000
CONNECTIONS = 64
ROUNDS = 3
SECONDS = 4
# More than one measurement asks about, so that no device is asked about twice.
AT_ONCE = DEVICES // (ROUNDS + 1) // 2


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    secret = f"mbs_{secrets.token_urlsafe(32)}"
    with stage.database("access") as database:
        database.execute((HERE / "sql" / "accounts.sql").read_text(), DEVICES)
        database.execute(
            "INSERT INTO broker_secrets (broker_id, secret_hash, prefix)"
            " SELECT id, %s, 'mbs_' FROM mqtt_broker_config WHERE is_default",
            hashlib.sha256(secret.encode()).digest(),
        )
        database.execute("VACUUM (ANALYZE) devices")
        database.checkpoint()
        firsts = count(1, AT_ONCE)
        reports: list[wrk.WrkReport] = []

        def rate(url: str, *, is_same: bool) -> float:
            first = 1 if is_same else next(firsts)
            last = 1 if is_same else first + AT_ONCE - 1
            with wrk.run(
                *("access.lua", url, secret, str(first), str(last)),
                connections=CONNECTIONS,
                seconds=SECONDS,
            ) as load:
                report = wrk.report_in(load.output(SECONDS), wrk.WrkReport)
            if not is_same and report.answers > AT_ONCE:
                raise CannotMeasure(f"{report.answers} questions are more than there are devices")
            reports.append(report)
            return report.good_per_s

        with stage.services(database) as services:
            with http_yardstick.running("empty") as url:
                same = _turns(
                    partial(rate, services.access_url, is_same=True),
                    partial(rate, url, is_same=True),
                )
            with http_yardstick.running("query", database.owner_url) as url:
                reports.clear()
                different = _turns(
                    partial(rate, services.access_url, is_same=False),
                    partial(rate, url, is_same=False),
                )
                p99_s = median(report.p99_s for report in reports[0::2])
    return Findings(
        (
            Figure(
                f"whether the same device may connect, {CONNECTIONS} connections",
                per_s(median(same.ours)),
                f"a handler that does nothing: {per_s(median(same.yardstick))}",
                same.ratio,
                goal=Goal(0.6, 0.8),
            ),
            Figure(
                f"whether another device may connect each time, {CONNECTIONS} connections",
                per_s(median(different.ours)),
                f"a query for each: {per_s(median(different.yardstick))}",
                different.ratio,
                goal=Goal(4, 6),
            ),
            Figure(
                "p99 of these",
                ms(p99_s),
                value=p99_s * 1e3,
                unit="ms",
                goal=Goal(50, 25, at_most=True),
            ),
            zero("errors among them", sum(report.errors for report in reports)),
        )
    )


def _turns(ours: Callable[[], float], yardstick: Callable[[], float]) -> Turns:
    """Measures in turns; the first turn is a warm-up."""
    turns = Turns()
    for number in range(ROUNDS + 1):
        for rate, rates in ((ours, turns.ours), (yardstick, turns.yardstick)):
            found = rate()
            if number:
                rates.append(found)
    return turns
