"""Whether open consoles slow down registrations.

Ten people, each with a browser of their own, look at the overview, which shows nearly everything
that a registration changes. Each follows the changes and asks for the page again as often as the
console's script does.
"""

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from bench import wrk
from bench.browsing import Browser, signed_in
from bench.errors import CannotMeasure
from bench.links import START
from bench.measures import Figure, Findings, Goal, Turns, per_s
from bench.programs import HERE
from bench.stage import Services, Stage

CONSOLES = 10
CONNECTIONS = 64
ROUNDS = 5
SECONDS = 15.0
WARM_UP_S = 2.0
PATIENCE_S = 20.0
SCRIPT = HERE.parent / "gateway" / "console" / "assets" / "live.js"


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    turns = Turns()
    pages = 0
    with stage.database("consoles") as database, stage.services(database) as services:
        rate = wrk.rate_of(services, CONNECTIONS)
        rate(WARM_UP_S)
        for _ in range(ROUNDS):
            turns.yardstick.append(rate(SECONDS))
            with opened_consoles(services) as shown:
                turns.ours.append(rate(SECONDS))
            pages += shown()
    if pages < CONSOLES:
        raise CannotMeasure(f"{CONSOLES} consoles asked for {pages} pages in {ROUNDS} rounds")
    return Findings(
        (
            Figure(
                f"registrations, {CONNECTIONS} connections, beside {CONSOLES} open consoles",
                f"{per_s(median(turns.ours))}, {pages / ROUNDS / SECONDS:.1f} pages/s",
                f"without: {per_s(median(turns.yardstick))}",
                turns.ratio,
                goal=Goal(0.97, 1.0),
            ),
        )
    )


@contextmanager
def opened_consoles(services: Services) -> Iterator[Callable[[], int]]:
    """Consoles that have been open for some seconds, and stay open during the block. Afterwards the
    number of pages that they asked for in it is known. Raises `CannotMeasure` if one failed.
    """
    over = threading.Event()
    consoles = []
    with ExitStack() as exits:
        for _ in range(CONSOLES):
            browser = exits.enter_context(signed_in(services, services.admin_token))
            consoles.append(_Console(browser, over))
        for console in consoles:
            console.start()
        try:
            if not all(console.is_shown.wait(PATIENCE_S) for console in consoles):
                raise CannotMeasure("a console does not show its first page")
            first = sum(console.pages for console in consoles)
            yield lambda: sum(console.pages for console in consoles) - first
        finally:
            over.set()
            for console in consoles:
                console.join()
    if not all(console.has_ended_well for console in consoles):
        raise CannotMeasure("a console failed")


class _Console(threading.Thread):
    """Shows the overview as its script does until `over`."""

    def __init__(self, browser: Browser, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.pages = 0
        # After the first refresh, which follows the page at once.
        self.is_shown = threading.Event()
        self.has_ended_well = False
        self._browser = browser
        self._over = over

    def run(self) -> None:
        names = ("GAP_MS", "TIMES_ITS_COST", "LONGEST_GAP_MS")
        gap, cost, longest = (_constant(name) for name in names)
        found = re.search(r'data-live="([^"]+)"', self._browser.get(START).text)
        kinds = set(found.group(1).split()) if found else set()
        is_stale, next_at = False, 0.0
        with self._browser.changes() as events:
            for line in events:
                if self._over.is_set():
                    break
                if line.startswith("data:"):
                    is_stale |= bool(kinds & set(json.loads(line[5:])["kinds"]))
                if is_stale and time.monotonic() >= next_at:
                    taken = self._browser.get(START, **{"mooring-background": "true"}).seconds
                    self.pages, is_stale = self.pages + 1, False
                    wait = min(max(gap / 1e3, cost * taken), longest / 1e3)
                    next_at = time.monotonic() + wait * random.uniform(1, 1.5)  # noqa: S311 - no secret
                    self.is_shown.set()
        self.has_ended_well = True


def _constant(name: str) -> float:
    """A number that the console's script declares."""
    found = re.search(rf"^const {name} = ([0-9_]+);$", SCRIPT.read_text(), re.MULTILINE)
    if not found:
        raise CannotMeasure(f"{SCRIPT.name} declares no {name}")
    return float(found.group(1))
