"""Any request of a broker gets a verdict or a refusal, and never an internal error."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from tests.brokers import Asking, asking
from tests.fuzz.changes import changed
from tests.stack import Stack
from tests.unit.registry_service.admission.listener.test_dialects import SOUND

pytestmark = pytest.mark.heavy

FUZZED_S = 20.0


@pytest.fixture
async def brokers(stack: Stack) -> AsyncIterator[Asking]:
    async with asking(stack) as running:
        yield running


async def test_no_body_of_any_dialect_is_an_internal_error(brokers: Asking) -> None:
    chance = random.Random(time.time_ns())  # noqa: S311 - inputs of a test are no secret
    until = time.monotonic() + FUZZED_S

    async def ask() -> None:
        dialect, operation, sound = chance.choice(SOUND)
        path = f"/{brokers.secret}/{dialect}/{operation}"
        body = changed(sound.body or sound.query, chance)
        headers = {
            name.decode(): value.decode("latin-1")
            for name, value in sound.headers.items()
            if chance.random() < 0.95
        }
        answer = await brokers.http.post(path, content=body, headers=headers)
        assert answer.status_code in (200, 403), (dialect, operation, body[:2000])

    while time.monotonic() < until:
        await asyncio.gather(*(ask() for _ in range(20)))
