"""How quickly the console answers with a million devices and correspondingly many other objects.

Every page is asked for several times, in turns, by an administrator and with a token that is
restricted to two fleets.
"""

import string
from collections.abc import Sequence
from statistics import median

from bench import crowd
from bench.browsing import Browser, reachable, signed_in
from bench.http import ask
from bench.measures import Figure, Findings, Goal, ms, percentile
from bench.programs import HERE
from bench.rows import brokers, keys, management
from bench.stage import Database, Services, Stage

ROUNDS = 6
# A large fleet, and one of three devices.
FLEETS = ("big", "three")
WHAT = f"{crowd.DEVICES:,} devices, {brokers.BROKERS:,} brokers"


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    with stage.database("console") as database:
        fill(database)
        with stage.services(database) as services:
            with signed_in(services, services.admin_token) as admin:
                of_admin = _figures("pages of the console", admin)
            with signed_in(services, _restricted(services)) as restricted:
                of_restricted = _figures("the same for two fleets", restricted)
    return Findings((*of_admin, *of_restricted))


def fill(database: Database) -> None:
    """Makes brokers, fleets, devices, keys, tokens, expected devices and lines of the audit log."""
    brokers.fill(database)
    keys.made(database)
    for name, values in (
        ("console.sql", (crowd.DEVICES,)),
        (
            "managed.sql",
            (management.KEYS, management.TOKENS, management.EXPECTED, management.AUDIT_LINES),
        ),
    ):
        database.execute((HERE / "sql" / name).read_text(), *values)
    database.execute("VACUUM (ANALYZE)")
    database.checkpoint()


def _restricted(services: Services) -> str:
    """The token of a viewer of these fleets."""
    body = {"name": "Viewer", "role": "viewer", "fleet_ids": FLEETS}
    made = ask(services.gateway_port, "POST", "/api/v1/tokens", services.admin_token, body)
    return str(made["token"])


def _beginnings() -> list[str]:
    """The first page, and searches of one letter, which match most or find none: of devices, of how
    many there are, and of everything.
    """
    letters = string.ascii_lowercase + string.digits
    pages = (
        *("/console/devices?search=", "/console/device-count?search="),
        *("/console/device-filters?search=", "/console/search?q="),
    )
    return ["/console", *(page + letter for page in pages for letter in letters)]


def _figures(what: str, browser: Browser) -> Sequence[Figure]:
    """The slowest page by its median, and by its 95th percentile."""
    paths = reachable(browser, _beginnings())
    taken: dict[str, list[float]] = {path: [] for path in paths}
    for _ in range(ROUNDS):
        for path in paths:
            taken[path].append(browser.get(path).seconds)
    figures = []
    for name, of_page, goal in (
        ("p50", median, Goal(100, 50, at_most=True)),
        ("p95", _p95, Goal(250, 100, at_most=True)),
    ):
        slowest = max(paths, key=lambda path: of_page(taken[path]))
        value = of_page(taken[slowest])
        figures.append(
            Figure(
                f"{name} of the slowest of {len(paths)} {what}, {WHAT}",
                f"{ms(value)}: `{slowest}`",
                value=value * 1e3,
                unit="ms",
                goal=goal,
            )
        )
    return figures


def _p95(values: Sequence[float]) -> float:
    return percentile(values, 0.95)
