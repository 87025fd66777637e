"""Jobs that pin many devices by a filter or a list, and undo it."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from chassis.database import engine_of
from registry_service.bulk.jobs.runner import Runner
from registry_service.bulk.jobs.work_store import WorkStore
from tests.stack import Stack

MAKE_KEY = (
    "INSERT INTO provisioning_keys (key_hash, fleet_id) VALUES (%s::text::bytea, %s)"
    " ON CONFLICT DO NOTHING"
)
MAKE_DEVICES = (
    "INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_broker_id, mqtt_username,"
    " mqtt_password_hash, credential_salt, credential_key_id, api_key_hash, provisioned_by_key_id)"
    " SELECT %s || n, 'Test', 'pi', key.fleet_id, %s, %s || n, '', '', 1, '', key.id"
    " FROM generate_series(1, %s) AS n, provisioning_keys AS key"
    " WHERE key.key_hash = %s::text::bytea"
)


@dataclass
class Jobs:
    """A stack, and the process that runs its jobs."""

    stack: Stack
    runner: Runner

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        response = await self.stack.admin(method, path, **options)
        assert response.status_code == status, response.text
        return response.json()

    async def create(self, broker_id: int | None, wanted: dict[str, Any] | None) -> int:
        body = {"kind": "assign", "mqtt_broker_id": broker_id, "filter": wanted}
        return int((await self.ask("POST", "/jobs", 201, json=body))["id"])

    async def upload(self, job_id: int, content: str, media_type: str, status: int = 200) -> Any:
        response = await self.stack.http.put(
            f"/api/v1/jobs/{job_id}/rows",
            content=content,
            headers={
                "Authorization": f"Bearer {self.stack.admin_token}",
                "Content-Type": media_type,
            },
        )
        assert response.status_code == status, response.text
        return response.json()

    async def run(self, job_id: int, action: str = "start") -> dict[str, Any]:
        """Starts the job, or does `action`, and runs it to its end; returns the job."""
        await self.ask("POST", f"/jobs/{job_id}/{action}")
        while await self.runner.run():
            pass
        found: dict[str, Any] = await self.ask("GET", f"/jobs/{job_id}")
        return found

    async def outcomes(self, job_id: int) -> list[str]:
        """The outcome of each row, in order."""
        rows = await self.ask("GET", f"/jobs/{job_id}/rows")
        return [row["outcome"] for row in rows["items"]]

    def devices(
        self, prefix: str, count: int, *, fleet: str = "demo", pin: int | None = None
    ) -> None:
        self.stack.database.execute(MAKE_KEY, fleet, fleet)
        self.stack.database.execute(MAKE_DEVICES, prefix, pin, prefix, count, fleet)

    def pins(self) -> dict[str, int | None]:
        return dict(self.stack.database.execute("SELECT uuid, mqtt_broker_id FROM devices"))


@pytest.fixture
async def jobs(stack: Stack) -> AsyncIterator[Jobs]:
    engine = engine_of(stack.database.url("mooring_registry"))
    runner = Runner(WorkStore(engine), "tests")
    yield Jobs(stack, runner)
    await runner.stop()
    await engine.dispose()


async def test_all_devices_that_match_are_moved_and_moved_back(jobs: Jobs) -> None:
    old, new = [await jobs.stack.create_broker(name) for name in ("old", "new")]
    await jobs.stack.create_fleet("closed")
    await jobs.stack.create_fleet("other")
    jobs.stack.database.execute("UPDATE fleets SET is_restricted = true WHERE id = 'closed'")
    jobs.devices("free-", 700)
    jobs.devices("pinned-", 800, pin=old)
    jobs.devices("there-", 5, pin=new)
    jobs.devices("shut-", 3, fleet="closed")
    jobs.devices("else-", 2, fleet="other")
    before = jobs.pins()

    job_id = await jobs.create(new, {"uuid_prefix": "shut-"})
    assert (await jobs.run(job_id))["outcomes"] == {"BROKER_NOT_ALLOWED": 3}
    assert jobs.pins() == before

    job_id = await jobs.create(new, {"fleet_id": "demo", "is_active": True})
    check = await jobs.ask("POST", f"/jobs/{job_id}/check")
    assert check["outcomes"] == {"moved": 1_500, "unchanged": 5}
    default = {"mqtt_broker_id": jobs.stack.default_broker_id, "source": "default"}
    target = {"mqtt_broker_id": new, "source": "device"}
    assert [(move["before"], move["after"], move["devices"]) for move in check["moves"]] == [
        ({"mqtt_broker_id": old, "source": "device"}, target, 800),
        (default, target, 700),
    ]
    assert set(check["moves"][1]["examples"]) == {"free-1", "free-99"}
    assert jobs.pins() == before

    done = await jobs.run(job_id)
    assert (done["state"], done["progress"], done["outcomes"]) == ("done", 1.0, {"moved": 1_500})
    moved = before | {
        uuid: new for uuid in before if not uuid.startswith(("shut-", "else-", "there-"))
    }
    assert jobs.pins() == moved
    page = await jobs.ask("GET", f"/jobs/{job_id}/rows?limit=1&outcome=moved")
    assert page["items"][0] | {"to_broker_id": new, "outcome": "moved"} == page["items"][0]
    assert page["next_cursor"]

    # Devices that were changed in the meantime are not moved back.
    jobs.stack.database.execute("UPDATE devices SET mqtt_broker_id = NULL WHERE uuid = 'pinned-1'")
    jobs.stack.database.execute("DELETE FROM devices WHERE uuid = 'pinned-2'")
    undone = await jobs.run(job_id, "undo")
    assert (undone["state"], undone["is_undo"]) == ("done", True)
    assert undone["outcomes"] == {"changed_since": 2, "undone": 1_498}
    del before["pinned-2"]
    assert jobs.pins() == before | {"pinned-1": None}
    await jobs.ask("POST", f"/jobs/{job_id}/undo", 409)

    lines = await jobs.ask("GET", f"/audit-log?subject={job_id}&action=job.")
    done_to_it = [(line["action"], line["actor"]) for line in reversed(lines["items"])]
    actions = ("job.create", "job.start", "job.finish", "job.undo", "job.finish")
    assert done_to_it == [(action, "tests") for action in actions]


async def test_each_line_of_a_list_has_an_outcome(jobs: Jobs) -> None:
    new, dead = [
        await jobs.stack.create_broker(name, is_active=name == "new") for name in ("new", "dead")
    ]
    await jobs.stack.create_fleet("closed")
    jobs.stack.database.execute("UPDATE fleets SET is_restricted = true WHERE id = 'closed'")
    jobs.devices("free-", 5)
    jobs.devices("there-", 2, pin=new)
    jobs.devices("shut-", 1, fleet="closed")
    before = jobs.pins()
    job_id = await jobs.create(new, None)
    refused = await jobs.ask("POST", f"/jobs/{job_id}/start", 409)
    assert refused["reason"] == "JOB_HAS_NO_LIST"
    expected = {
        '{"uuid": "free-1"}': "moved",
        '{"uuid": "there-1", "mqtt_broker_id": null}': "moved",
        '{"uuid": "there-2"}': "unchanged",
        '{"uuid": "shut-1"}': "BROKER_NOT_ALLOWED",
        '{"uuid": "nobody"}': "DEVICE_NOT_FOUND",
        '{"uuid": "free-1" }': "UUID_REPEATED",
        '{"uuid": 7}': "INVALID_ROW",
        '{"uuid": "a b"}': "INVALID_ROW",
        '"\\u0000': "INVALID_ROW",
        f'{{"uuid": "free-2", "mqtt_broker_id": {dead}}}': "BROKER_INACTIVE",
        '{"uuid": "free-3", "mqtt_broker_id": 2147483647}': "BROKER_UNKNOWN",
    }
    ndjson = "application/x-ndjson"
    # The second list replaces the first.
    await jobs.upload(job_id, '{"uuid": "free-5"}', ndjson)
    uploaded = await jobs.upload(job_id, "\n".join(expected), ndjson)
    assert uploaded["is_uploaded"]
    assert uploaded["outcomes"] == {"pending": 7, "INVALID_ROW": 3, "UUID_REPEATED": 1}

    drafts = (await jobs.ask("GET", f"/jobs/{job_id}/rows"))["items"]
    assert [row["verdict"] or row["outcome"] for row in drafts] == list(expected.values())
    assert [row["line"] for row in drafts] == list(range(1, 12))
    assert (drafts[1]["from_broker_id"], drafts[1]["to_broker_id"]) == (new, None)
    check = await jobs.ask("POST", f"/jobs/{job_id}/check")
    assert check["outcomes"] == Counter(expected.values())

    done = await jobs.run(job_id)
    assert done["outcomes"] == Counter(expected.values())
    assert await jobs.outcomes(job_id) == list(expected.values())
    assert jobs.pins() == before | {"free-1": new, "there-1": None}
    late = await jobs.upload(job_id, "uuid\nfree-4\n", "text/csv", status=409)
    assert late["reason"] == "JOB_STATE_FORBIDS"

    assert (await jobs.run(job_id, "undo"))["outcomes"]["undone"] == 2
    assert jobs.pins() == before


async def test_a_job_takes_the_devices_at_its_start_and_refuses_wrong_actions(jobs: Jobs) -> None:
    new = await jobs.stack.create_broker("new")
    jobs.devices("free-", 3)
    job_id = await jobs.create(new, {"mqtt_broker_id": None, "told_broker_id": None})
    late = await jobs.upload(job_id, "uuid\nfree-1\n", "text/csv", status=409)
    assert late["reason"] == "JOB_HAS_FILTER"
    await jobs.ask("POST", f"/jobs/{job_id}/pause", 409)
    await jobs.ask("POST", f"/jobs/{job_id}/start")
    # This device registers after the start, so the job does not move it.
    jobs.devices("late-", 1)
    paused = await jobs.ask("POST", f"/jobs/{job_id}/pause")
    assert (paused["state"], await jobs.runner.run()) == ("paused", False)
    assert (await jobs.run(job_id, "resume"))["outcomes"] == {"moved": 3}
    assert jobs.pins()["late-1"] is None
    await jobs.ask("POST", f"/jobs/{job_id}/cancel", 409)

    other = await jobs.create(None, {"mqtt_broker_id": new})
    await jobs.ask("POST", f"/jobs/{other}/cancel")
    listed = await jobs.ask("GET", "/jobs?state=cancelled")
    assert [job["id"] for job in listed["items"]] == [other]
    assert listed["items"][0]["filter"] == {"mqtt_broker_id": new}
    for path in ("/jobs/99", "/jobs/99/rows"):
        assert (await jobs.ask("GET", path, 404))["reason"] == "JOB_NOT_FOUND"
    body = {"kind": "assign", "mqtt_broker_id": 99}
    assert (await jobs.ask("POST", "/jobs", 422, json=body))["reason"] == "BROKER_UNKNOWN"
