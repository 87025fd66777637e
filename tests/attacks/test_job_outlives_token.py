"""A job must not go on in the name of a person who has lost the right to it."""

from typing import Any

import httpx2
import pytest

from tests.integration.registry_service.bulk.test_jobs import Jobs, jobs  # noqa: F401 - a fixture
from tests.stack import Stack

SIZE = 10
ENDS = {
    "revoked": "UPDATE api_tokens SET is_active = false WHERE name = 'leaver'",
    "expired": "UPDATE api_tokens SET expires_at = now() WHERE name = 'leaver'",
    "may not": "UPDATE api_tokens SET role = 'viewer' WHERE name = 'leaver'",
    "may not run": "UPDATE api_tokens SET fleet_ids = '{demo}' WHERE name = 'leaver'",
    "was revoked": "DELETE FROM api_tokens WHERE name = 'leaver'",
}


async def by(stack: Stack, token: str, method: str, path: str, **options: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return await stack.http.request(method, f"/api/v1{path}", headers=headers, **options)


@pytest.mark.parametrize("how", ENDS)
async def test_a_job_of_a_revoked_token_moves_no_more_devices(
    jobs: Jobs,  # noqa: F811
    how: str,
) -> None:
    stack = jobs.stack
    new = await stack.create_broker("new")
    jobs.devices("d-", 50)
    made = await stack.admin("POST", "/tokens", json={"name": "leaver", "role": "operator"})
    token = made.json()["token"]
    body = {"kind": "assign", "mqtt_broker_id": new, "filter": {"fleet_id": "demo"}}
    job = (await by(stack, token, "POST", "/jobs", json=body)).json()
    assert (await by(stack, token, "POST", f"/jobs/{job['id']}/start")).status_code == 200

    jobs.runner._size = SIZE
    assert await jobs.runner.run()
    moved = sum(pin == new for pin in jobs.pins().values())
    assert 0 < moved < 50
    stack.database.execute(ENDS[how])
    while await jobs.runner.run():
        pass
    assert sum(pin == new for pin in jobs.pins().values()) == moved
    paused = (await stack.admin("GET", f"/jobs/{job['id']}")).json()
    assert paused["state"] == "paused"
    assert how in paused["failure"]
    lines = (await stack.admin("GET", "/audit-log?action=job.fail")).json()["items"]
    assert [(line["actor"], line["subject"]) for line in lines] == [("leaver", str(job["id"]))]

    # A person with the right resumes it, and it is done in that person's name.
    assert (await stack.admin("POST", f"/jobs/{job['id']}/resume")).status_code == 200
    while await jobs.runner.run():
        pass
    assert set(jobs.pins().values()) == {new}
    assert (await stack.admin("GET", f"/jobs/{job['id']}")).json()["actor"] == "tests"
