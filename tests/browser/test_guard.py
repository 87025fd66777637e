"""The guard finds what no page may do; otherwise the other tests would show nothing."""

import asyncio

import pytest

from tests.browser.guard import Guard
from tests.browser.visits import Visits

FAULTS = {
    "the policy": ("document.body.setAttribute('style', 'color: red')", "Content Security Policy"),
    "the console": ("console.error('a fault')", "a fault"),
    "a script": ("setTimeout(() => { throw new Error('a fault') })", "a fault"),
    "another origin": ("new Image().src = 'http://127.0.0.1:9/'", "asked another origin"),
    "a missing file": ("fetch('/console/no-such-page')", "404"),
}


@pytest.mark.parametrize("what", FAULTS)
async def test_the_guard_finds(visits: Visits, guard: Guard, what: str) -> None:
    script, expected = FAULTS[what]
    page = await visits.signed_in()
    assert not guard.faults
    await page.evaluate(f"() => {{ {script} }}")
    async with asyncio.timeout(20):
        while not any(expected in fault for fault in guard.faults):
            await page.evaluate("() => new Promise(requestAnimationFrame)")
    # Another fault may follow from it.
    guard.faults.clear()
