"""One installation for all journeys: the real processes take seconds to start."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.browser.journeys.installation import Installation, installed


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """The running processes. Journeys name what they make so that it is theirs alone."""
    async with installed(tmp_path_factory.mktemp("run") / "home") as running:
        yield running


@pytest.fixture
def served(installation: Installation) -> Installation:
    """The gateway that the pages of these tests come from."""
    return installation
