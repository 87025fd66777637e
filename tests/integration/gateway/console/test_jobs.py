"""Jobs at the console: from a selection to a dry run, a start and an undo; and files of devices."""

import csv
import io
import json
import re
from typing import Any

import pytest

from chassis.database import engine_of
from registry_service.bulk.jobs.runner import Runner
from registry_service.bulk.jobs.work_store import WorkStore
from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    Person,
    assert_escaped,
    everybody,
)
from tests.stack import Stack

JOBS = "/console/jobs"
ACTS = ("start", "pause", "resume", "cancel", "undo")
PINS = "SELECT uuid, mqtt_broker_id FROM devices ORDER BY uuid"


async def run(stack: Stack) -> None:
    """Runs the jobs that were started to their ends."""
    engine = engine_of(stack.database.url("mooring_registry"))
    runner = Runner(WorkStore(engine), "tests")
    try:
        while await runner.run():
            pass
    finally:
        await runner.stop()
        await engine.dispose()


async def created(person: Person, **fields: Any) -> str:
    answer = await person.send(JOBS, **fields)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


async def test_a_selection_is_checked_moved_and_moved_back(stack: Stack) -> None:
    other_id = await stack.create_broker(HOSTILE, host="other.example.com")
    for name in ("press-1", "press-2", "kiln-1"):
        assert (await stack.register(name)).status_code == 201
    async with everybody(stack) as people:
        operator = people["operator"]
        listed = await operator.see("/console/devices", search="press-")
        assert 'href="/console/jobs/new?search=press-"' in listed.text
        form = await operator.see(f"{JOBS}/new", search="press-")
        assert "2 devices" in form.text
        assert_escaped(form.text)
        job = await created(operator, conditions="search=press-", mqtt_broker_id=str(other_id))
        draft = await operator.see(job)
        assert "Draft" in draft.text
        assert_escaped(draft.text)
        # What it would do is asked for by a script, or by the link in its place.
        check = await operator.see(f"{job}/check")
        assert "Start: move 2 devices" in check.text
        assert_escaped(check.text)
        assert stack.database.execute(PINS) == [(u, None) for u in ("kiln-1", "press-1", "press-2")]
        assert (await operator.send(f"{job}/start")).status_code == 303
        # The page follows the job.
        assert 'data-live="brokers jobs"' in (await operator.see(job)).text
        await run(stack)
        done = await operator.see(job)
        assert "press-1" in done.text
        assert "kiln-1" not in done.text
        assert [pin for _, pin in stack.database.execute(PINS)] == [None, other_id, other_id]
        assert "gives 2 devices their" in (await operator.see(f"{job}/undo")).text
        assert (await operator.send(f"{job}/undo")).status_code == 303
        await run(stack)
        assert [pin for _, pin in stack.database.execute(PINS)] == [None, None, None]
        again = await operator.send(f"{job}/undo")
        assert again.status_code == 409
        assert "JOB_STATE_FORBIDS" in again.text

        ticked = await operator.see(f"{JOBS}/new?uuid=kiln-1&uuid=press-2")
        assert "2 devices that you ticked" in re.sub(r"\s+", " ", ticked.text)
        job = await created(operator, uuid=["kiln-1", "press-2"], mqtt_broker_id=str(other_id))
        assert "Start: move 2 devices" in (await operator.see(f"{job}/check")).text
        job = await created(
            operator, rows=f"uuid\nkiln-1\n{HOSTILE}\n", mqtt_broker_id=str(other_id)
        )
        rows = await operator.see(job)
        assert_escaped(rows.text)
        assert "DEVICE_NOT_FOUND" in rows.text or "INVALID_ROW" in rows.text
        listed = await people["viewer"].see(JOBS)
        assert_escaped(listed.text)
        assert 'method="post" action="/console/jobs' not in listed.text


async def test_who_may_see_and_act_on_jobs(stack: Stack) -> None:
    await stack.register()
    async with everybody(stack) as people:
        job = await created(people["operator"], conditions="", mqtt_broker_id="1")
        stored = "SELECT state FROM jobs"
        for name in ("viewer", "demo", "elsewhere"):
            for path in (JOBS, job, f"{job}/check"):
                seen = await people[name].see(path)
                assert seen.status_code == (200 if name == "viewer" else 403), (name, path)
                assert 'method="post" action="/console/jobs' not in seen.text
            for act in ACTS:
                assert (await people[name].send(f"{job}/{act}")).status_code == 403
            assert (await people[name].send(JOBS, conditions="")).status_code == 403
            assert (await people[name].see(f"{JOBS}/new")).status_code == 403
        assert stack.database.execute(stored) == [("draft",)]
        for act, status, state in (
            ("resume", 409, "draft"),
            ("start", 303, "running"),
            ("pause", 303, "paused"),
            ("resume", 303, "running"),
            ("cancel", 303, "cancelled"),
        ):
            assert (await people["operator"].send(f"{job}/{act}")).status_code == status, act
            assert stack.database.execute(stored) == [(state,)]


async def test_odd_jobs_are_answered_by_a_page(stack: Stack) -> None:
    async with everybody(stack) as people:
        operator = people["operator"]
        for odd in ODD:
            for fields in (
                {"mqtt_broker_id": odd, "conditions": ""},
                {"mqtt_broker_id": "1", "rows": odd},
                {"mqtt_broker_id": "1", "uuid": odd},
                {"mqtt_broker_id": "1", "conditions": f"fleet_id={odd}"},
                {"mqtt_broker_id": "1", "conditions": f"told_broker_id={odd}"},
                {"mqtt_broker_id": "1", "conditions": odd},
            ):
                answer = await operator.send(JOBS, **fields)
                assert answer.status_code in (303, 409, 422), fields
            for name in ("state", "cursor"):
                assert (await operator.see(JOBS, **{name: odd[:2_000]})).status_code in (
                    *(200, 400, 422),
                )
        for path in ("/0", "/99999999999", "/999", "/x", "/999/check", "/999/undo"):
            assert (await operator.see(JOBS + path)).status_code in (400, 404, 422), path


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
async def test_a_file_has_its_verdicts_before_anything_is_written(stack: Stack, kind: str) -> None:
    await stack.register("there-already")
    rows = [("imported-1", "demo"), (HOSTILE, "demo"), ("there-already", "demo")]
    file = io.StringIO()
    if kind == "csv":
        csv.writer(file).writerows([("uuid", "fleet_id"), *rows])
    else:
        file.writelines(
            json.dumps({"uuid": uuid, "fleet_id": fleet}) + "\n" for uuid, fleet in rows
        )
    text = file.getvalue()
    home = "/console/imports/devices"
    async with everybody(stack) as people:
        for name in ("viewer", "demo"):
            assert (await people[name].see(home)).status_code == 403
            for path in (home, f"{home}/check"):
                assert (await people[name].send(path, rows=text)).status_code == 403
        operator = people["operator"]
        assert "See the verdict" in (await operator.see(home)).text
        checked = await operator.send(f"{home}/check", rows=text)
        assert checked.status_code == 200
        assert_escaped(checked.text)
        for words in ("1 new", "1 exist already", "1 refused", "Import 1 device<"):
            assert words in checked.text, words
        assert stack.database.execute("SELECT count(*) FROM devices") == [(1,)]
        imported = await operator.send(home, rows=text)
        assert "1 created" in imported.text
        assert stack.database.execute("SELECT count(*) FROM devices") == [(2,)]
        again = await operator.send(home, rows=text)
        assert "0 created" in again.text
        for odd in (*ODD, "uuid,nothing\na,b", "", "{", "{}\n{}"):
            for path in (home, f"{home}/check"):
                assert (await operator.send(path, rows=odd)).status_code in (200, 400, 422), odd
        assert stack.database.execute("SELECT count(*) FROM devices") == [(2,)]


async def test_expected_devices(stack: Stack) -> None:
    home = "/console/expected-devices"
    count = "SELECT count(*) FROM expected_devices"
    async with everybody(stack) as people:
        for name in ("viewer", "elsewhere"):
            refused = await people[name].send(home, uuid="soon", fleet_id="demo")
            assert refused.status_code in (403, 422), name
        assert stack.database.execute(count) == [(0,)]
        operator = people["demo"]
        made = await operator.send(
            home, uuid="soon", fleet_id="demo", device_name=HOSTILE, mqtt_broker_id=""
        )
        assert made.status_code == 303, made.text
        for name, person in people.items():
            seen = await person.see(home)
            assert seen.status_code == 200
            assert ("soon" in seen.text) == (name != "elsewhere")
            if name != "elsewhere":
                assert_escaped(seen.text)
        twice = await operator.send(home, uuid="soon", fleet_id="demo", device_name=HOSTILE)
        assert twice.status_code == 409
        assert_escaped(twice.text)
        assert (await people["elsewhere"].send(f"{home}/soon/delete")).status_code == 404
        assert (await people["viewer"].send(f"{home}/soon/delete")).status_code == 403
        for odd in ODD:
            for field in ("uuid", "fleet_id", "mqtt_broker_id", "region"):
                fields = {"uuid": "soon", "fleet_id": "demo", field: odd}
                # Some of these are uuids.
                answer = await operator.send(home, **fields)
                assert answer.status_code in (303, 409, 422), (field, odd)
            for field in ("cursor", "fleet_id", "registered"):
                seen = await operator.see(home, **{field: odd[:2_000]})
                assert seen.status_code in (200, 400, 422)
        assert "any fleet" in (await operator.see(f"{home}/soon/delete")).text
        assert (await operator.send(f"{home}/soon/delete")).status_code == 303
        assert (await operator.see(f"{home}/soon/delete")).status_code == 404
