"""Many devices get another pin: piece by piece, and back."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from chassis.database import engine_of
from registry_service.background.runner import Runner
from registry_service.background.store import WorkStore
from tests.stack import Stack

MAKE_DEVICES = (
    "INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_broker_id, mqtt_username,"
    " mqtt_password_hash, credential_salt, credential_key_id, api_key_hash, provisioned_by_key_id)"
    " SELECT %s || n, 'Test', 'pi', %s, %s, %s || n, '', '', 1, '', key.id"
    " FROM generate_series(1, %s) AS n, (SELECT id FROM provisioning_keys LIMIT 1) AS key"
)


@dataclass
class Jobs:
    """A stack with jobs in it, and the process that runs them."""

    stack: Stack
    runner: Runner

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        response = await self.stack.admin(method, path, **options)
        assert response.status_code == status, response.text
        return response.json()

    async def create(self, broker_id: int | None, wanted: dict[str, Any] | None) -> int:
        body = {"kind": "assign", "mqtt_broker_id": broker_id, "filter": wanted}
        return int((await self.ask("POST", "/jobs", 201, json=body))["id"])

    async def run(self, job_id: int, action: str = "start") -> dict[str, Any]:
        """The job, when it has come to its end."""
        await self.ask("POST", f"/jobs/{job_id}/{action}")
        while await self.runner.run():
            pass
        found: dict[str, Any] = await self.ask("GET", f"/jobs/{job_id}")
        return found

    def devices(
        self, prefix: str, count: int, *, fleet: str = "demo", pin: int | None = None
    ) -> None:
        self.stack.database.execute(MAKE_DEVICES, prefix, fleet, pin, prefix, count)

    def pins(self) -> dict[str, int | None]:
        return dict(self.stack.database.execute("SELECT uuid, mqtt_broker_id FROM devices"))


@pytest.fixture
async def jobs(stack: Stack) -> AsyncIterator[Jobs]:
    engine = engine_of(stack.database.url("mooring_registry"))
    runner = Runner(WorkStore(engine), "tests")
    yield Jobs(stack, runner)
    await runner.stop()
    await engine.dispose()


async def test_all_that_match_are_moved_and_put_back(jobs: Jobs) -> None:
    old, new = [await jobs.stack.create_broker(name) for name in ("old", "new")]
    jobs.devices("free-", 1_500)
    jobs.devices("pinned-", 1_500, pin=old)
    before = jobs.pins()
    job_id = await jobs.create(new, {"fleet_id": "demo"})
    check = await jobs.ask("POST", f"/jobs/{job_id}/check")
    print(check)
    assert check["outcomes"] == {"moved": 3_000}
    done = await jobs.run(job_id)
    print(done)
    assert (done["state"], done["progress"]) == ("done", 1.0)
    assert done["outcomes"] == {"moved": 3_000}
    assert set(jobs.pins().values()) == {new}
    rows = await jobs.ask("GET", f"/jobs/{job_id}/rows?limit=2")
    print(rows)
    undone = await jobs.run(job_id, "undo")
    assert undone["outcomes"] == {"undone": 3_000}
    assert jobs.pins() == before
