"""A browser for the run, the services on its event loop, and guarded pages for each test.

Every test of this folder is heavy, and runs on the event loop of the session, as the browser does.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from local.errors import CannotRun
from tests.browser import chromium
from tests.browser.guard import Guard
from tests.browser.person import Person, View
from tests.browser.visits import PATIENCE_MS, Visits
from tests.served import Served
from tests.stack import Database, Stack, started

HERE = Path(__file__).parent
expect.set_options(timeout=PATIENCE_MS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, before the run leaves out those that it does not want."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.heavy)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """The browser that all tests share."""
    try:
        async with chromium.browser(tmp_path_factory.mktemp("chromium")) as running:
            yield running
    except CannotRun as reason:
        pytest.exit(str(reason), returncode=1)


@pytest_asyncio.fixture(loop_scope="session")
async def stack(database: Database, tmp_path: Path) -> AsyncIterator[Stack]:
    """The services on one database, with a fleet, a key, a token and a default broker."""
    async with started(database, tmp_path) as running:
        yield running


@pytest.fixture
def served(stack: Stack) -> Served:
    """The gateway that the pages of the test come from."""
    return stack


@pytest.fixture
def guard(served: Served) -> Guard:
    """Collects what the pages of the test did wrong. `visits` checks it at the end."""
    return Guard(served.gateway_url)


@pytest_asyncio.fixture(loop_scope="session")
async def visits(browser: Browser, served: Served, guard: Guard) -> AsyncIterator[Visits]:
    """Opens pages of the console. The test fails if one of them does what none may do."""
    made = Visits(browser, served, guard)
    yield made
    await made.close()
    assert not guard.faults, "\n".join(guard.faults)


@pytest_asyncio.fixture(loop_scope="session")
async def person(request: pytest.FixtureRequest, visits: Visits) -> Person:
    """A person at a page that is still empty, as `seen` says."""
    view: View = request.param
    page = await visits.page(theme=view.theme, size=view.size)
    return Person(visits, page, view.theme, view.has_keyboard_only)
