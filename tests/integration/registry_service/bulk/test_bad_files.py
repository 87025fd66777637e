"""Files with a million invalid rows: each row is named, nothing is stored, others are served."""

import asyncio
import json
import resource

import pytest

from tests.stack import Stack

ROWS = 1_000_000
LISTED = 50_000
# Peak memory of this process, which runs client, gateway and services.
MAX_GROWTH_KIB = 600 * 1024


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def longest_wait_of_others(stack: Stack, ended: asyncio.Event) -> float:
    """The longest time that a small request of another client has taken, in seconds."""
    loop, longest = asyncio.get_running_loop(), 0.0
    while not ended.is_set():
        begun = loop.time()
        assert (await stack.admin("GET", "/fleets/demo")).status_code == 200
        longest = max(longest, loop.time() - begun)
    return longest


@pytest.mark.heavy
async def test_each_of_a_million_bad_rows_is_refused_by_its_line(stack: Stack) -> None:
    bad = ("?,demo\n", "press,\n", "a b,demo\n", ",,,,\n")
    content = "uuid,fleet_id\n" + "".join(bad) * (ROWS // len(bad))
    before, seen, ended = peak_kib(), 0, asyncio.Event()
    others = asyncio.create_task(longest_wait_of_others(stack, ended))
    request = stack.http.stream(
        "POST",
        "/api/v1/devices/import",
        content=content.encode(),
        headers={"Authorization": f"Bearer {stack.admin_token}", "Content-Type": "text/csv"},
        timeout=110,
    )
    async with request as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            seen += 1
            if seen <= len(bad):
                found = json.loads(line)
                assert (found["line"], found["outcome"]) == (seen + 1, "refused")
                assert found["reason"] == "INVALID_INPUT", found
    ended.set()
    assert seen == ROWS + 1
    end = json.loads(line)
    assert (end["complete"], end["created"], end["refused"]) == (True, 0, ROWS)
    assert stack.database.execute("SELECT count(*) FROM devices") == [(0,)]
    assert await others < 5
    assert peak_kib() - before < MAX_GROWTH_KIB


async def test_a_job_with_only_invalid_rows_moves_no_device(stack: Stack) -> None:
    job = {"kind": "assign", "mqtt_broker_id": stack.default_broker_id}
    made = (await stack.admin("POST", "/jobs", json=job)).json()
    content = "uuid,mqtt_broker_id\n" + "?,x\n" * LISTED
    before, ended = peak_kib(), asyncio.Event()
    others = asyncio.create_task(longest_wait_of_others(stack, ended))
    sent = await stack.http.put(
        f"/api/v1/jobs/{made['id']}/rows",
        content=content.encode(),
        headers={"Authorization": f"Bearer {stack.admin_token}", "Content-Type": "text/csv"},
        timeout=110,
    )
    ended.set()
    assert (sent.status_code, sent.json()["outcomes"]["INVALID_ROW"]) == (200, LISTED)
    page = (await stack.admin("GET", f"/jobs/{made['id']}/rows?limit=1")).json()
    assert page["items"][0]["outcome"] == "INVALID_ROW"
    assert await others < 5
    assert peak_kib() - before < MAX_GROWTH_KIB
