"""`python -m tests.browser.screenshots`: takes the pictures of the documents again.

It starts the services on an empty database, fills them with the data of `demo`, and writes
docs/images/console-*.png.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from local.errors import CannotRun
from local.postgres import Postgres
from tests import REPOSITORY
from tests.browser import chromium, demo
from tests.browser.guard import Guard
from tests.browser.visits import PHONE, WIDE, Theme, Visits
from tests.conftest import copied, migrated
from tests.stack import Database, started

IMAGES = REPOSITORY / "docs" / "images"
MAX_BYTES = 150_000
# The name of a picture, the page, the theme and the size.
PICTURES: tuple[tuple[str, str, Theme, tuple[int, int]], ...] = (
    ("console-light", "/console", "light", WIDE),
    ("console-dark", "/console/brokers/2", "dark", WIDE),
    ("console-phone", "/console/brokers", "light", PHONE),
)


async def take(folder: Path) -> list[Path]:
    """Writes the pictures to `folder`. Raises `CannotRun` if one is larger than it may be."""
    made = []
    async with _console() as visits:
        token = await visits.served.token(name="Ada Park")
        for name, path, theme, size in PICTURES:
            page = await visits.page(theme=theme, size=size)
            await visits.begin_session(page, token)
            await page.goto(path)
            await page.evaluate("() => document.fonts.ready")
            file = folder / f"{name}.png"
            await page.screenshot(path=file)
            if file.stat().st_size > MAX_BYTES:
                raise CannotRun(f"{file} has more than {MAX_BYTES:,} bytes")
            made.append(file)
        if visits.guard.faults:
            raise CannotRun("; ".join(visits.guard.faults))
    return made


@asynccontextmanager
async def _console() -> AsyncIterator[Visits]:
    with ExitStack() as exits:
        folder = Path(exits.enter_context(TemporaryDirectory()))
        for name in ("postgres", "home", "chromium"):
            (folder / name).mkdir()
        server = exits.enter_context(Postgres(folder / "postgres"))
        database = exits.enter_context(copied(Database(server, "mooring", migrated(server))))
        async with started(database, folder / "home") as stack:
            await demo.fill(stack)
            async with chromium.browser(folder / "chromium") as browser:
                visits = Visits(browser, stack, Guard(stack.gateway_url))
                yield visits
                await visits.close()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    IMAGES.mkdir(exist_ok=True)
    try:
        for written in asyncio.run(take(IMAGES)):
            print(written.relative_to(REPOSITORY))  # noqa: T201 - it is a command
    except CannotRun as reason:
        sys.exit(f"screenshots: {reason}")
