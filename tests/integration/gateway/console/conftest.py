"""A browser without scripts, which the tests of the console's pages use."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.integration.gateway.console.people import SAME_ORIGIN
from tests.served import NO_TLS
from tests.stack import Stack


@pytest.fixture
async def browser(stack: Stack) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that keeps cookies and says, as browsers do, that its forms are of this origin."""
    async with httpx2.AsyncClient(
        base_url=stack.gateway_url, headers=SAME_ORIGIN, verify=NO_TLS
    ) as client:
        yield client
