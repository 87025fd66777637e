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
SECONDS = 12.0
WARM_UP_S = 2.0
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
    if pages < CONSOLES * ROUNDS:
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
    """Consoles that stay open during the block. Afterwards the number of pages that they asked for
    is known. Raises `CannotMeasure` if one of them failed.
    """
    over = threading.Event()
    pages: list[int] = []

    def looked(browser: Browser) -> None:
        pages.append(_looked(browser, over))

    with ExitStack() as exits:
        threads = []
        for _ in range(CONSOLES):
            browser = exits.enter_context(signed_in(services, services.admin_token))
            threads.append(threading.Thread(target=looked, args=[browser], daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield lambda: sum(pages)
        finally:
            over.set()
            for thread in threads:
                thread.join()
    if len(pages) < CONSOLES:
        raise CannotMeasure(f"{CONSOLES - len(pages)} of {CONSOLES} consoles failed")


def _looked(browser: Browser, over: threading.Event) -> int:
    """Shows the overview as its script does until `over`; returns how often it asked for it."""
    gap, cost, longest = (
        _constant(name) for name in ("GAP_MS", "TIMES_ITS_COST", "LONGEST_GAP_MS")
    )
    page = browser.get(START)
    found = re.search(r'data-live="([^"]+)"', page.text)
    if not found:
        raise CannotMeasure("the overview does not say what it shows")
    kinds = set(found.group(1).split())
    pages, is_stale, next_at = 1, False, 0.0
    with browser.changes() as events:
        for line in events:
            if over.is_set():
                break
            if line.startswith("data:"):
                is_stale |= bool(kinds & set(json.loads(line[5:])["kinds"]))
            if is_stale and time.monotonic() >= next_at:
                taken = browser.get(START, **{"mooring-background": "true"}).seconds
                pages, is_stale = pages + 1, False
                wait = min(max(gap / 1e3, cost * taken), longest / 1e3)
                next_at = time.monotonic() + wait * random.uniform(1, 1.5)  # noqa: S311 - no secret
    return pages


def _constant(name: str) -> float:
    """A number that the console's script declares."""
    found = re.search(rf"^const {name} = ([0-9_]+);$", SCRIPT.read_text(), re.MULTILINE)
    if not found:
        raise CannotMeasure(f"{SCRIPT.name} declares no {name}")
    return float(found.group(1))
