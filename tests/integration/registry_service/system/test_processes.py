"""Processes report their state, and one that was killed is seen to be gone."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mooring.registry.v1 import system_pb2 as pb
from mooring.registry.v1 import system_pb2_grpc, tokens_pb2

from chassis import loops, process_table, reporting
from chassis.config import SET
from chassis.database import engine_of
from chassis.errors import Forbidden, InvalidInput
from chassis.loops import Loop, States, Turn
from chassis.probes import Probes
from chassis.reporting import Reporter, reported
from chassis.trust import Access, Actor
from registry_service.config import WorkerConfig
from registry_service.system.process_store import KEPT_OF_A_NAME, ProcessStore
from tests import REPOSITORY
from tests.stack import Database, Stack

PATIENCE_S = 30.0
CANARY = "canary-8d1f"


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """The first result that is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
    return found


async def processes(stack: Stack, token: str = "") -> list[dict[str, Any]]:
    answer = await stack.http.get(
        "/api/v1/system/processes",
        headers={"Authorization": f"Bearer {token or stack.admin_token}"},
    )
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


@contextlib.contextmanager
def started(module: str, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of its own, which is killed at the end of the block if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=REPOSITORY,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_all_processes_appear_and_killed_ones_are_lost(stack: Stack, tmp_path: Path) -> None:
    def url(role: str) -> str:
        # A parameter that libpq allows in a URL, and that is no secret to it.
        return f"{stack.database.url(role)}?application_name={CANARY}"

    keys = tmp_path / f"{CANARY}.json"
    keys.write_bytes(stack.keys_file.read_bytes())
    worker = {
        "DATABASE_URL": url("mooring_registry"),
        "WORKER_LOOPS": "jobs,readers",
        "JOB_POLL_S": "0.05",
        "SERVER_KEYS_FILE": str(keys),
    }
    with (
        started("registry_service.worker", **worker) as killed,
        started(
            "registry_service.audit.sealing",
            DATABASE_URL=url("mooring_sealer"),
            AUDIT_KEYS_FILE=str(keys),
        ) as stopped,
    ):

        async def all_ready() -> dict[str, dict[str, Any]]:
            found = {process["process"]: process for process in await processes(stack)}
            names = {killed: "registry_service.worker", stopped: "registry_service.audit.sealing"}
            names_ready = [found[name]["is_ready"] for name in names.values() if name in found]
            return found if len(found) == 5 and len(names_ready) == 2 and all(names_ready) else {}

        found = await until(all_ready)
        assert found.keys() == {
            *("broker_service", "gateway", "registry_service"),
            *("registry_service.audit.sealing", "registry_service.worker"),
        }
        assert {process["state"] for process in found.values()} == {"running"}
        working = found["registry_service.worker"]
        assert working["pid"] == killed.pid
        [jobs, readers] = working["loops"]
        # The worker takes the lease of its jobs when there is one.
        assert (jobs["name"], jobs["holds_lease"], readers["holds_lease"]) == ("jobs", False, None)
        assert jobs["succeeded_at"] is not None
        assert found["registry_service.audit.sealing"]["loops"][0]["holds_lease"] is True

        # Administrators see harmless values, and of secrets only that they are set.
        assert working["configuration"]["JOB_POLL_S"] == "0.05"
        assert working["configuration"]["DATABASE_URL"] == SET
        said = str(list(found.values()))
        assert CANARY not in said
        assert stack.database.password not in said
        for file in stack.trust.secrets.values():
            assert file.read_text().strip() not in said
        viewer = tokens_pb2.CreateTokenRequest(name="v", role=tokens_pb2.ROLE_VIEWER)
        token = (await stack.registry.tokens("CreateToken", viewer)).secret
        assert {process["configuration"] for process in await processes(stack, token)} == {None}

        killed.kill()
        killed.wait()
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(PATIENCE_S) == 0
        # Instead of waiting for half a minute.
        stack.database.execute(
            "UPDATE processes SET seen_at = seen_at - interval '31 s' WHERE pid = %s", killed.pid
        )
        found = {process["process"]: process for process in await processes(stack)}
        lost = found["registry_service.worker"]
        assert (lost["state"], lost["ended_at"]) == ("lost", None)
        ended = found["registry_service.audit.sealing"]
        assert ended["state"] == "ended"
        assert ended["ended_at"] is not None
        assert found["gateway"]["state"] == "running"

        async def listed(**query: str) -> set[str]:
            answer = await stack.admin("GET", "/system/processes", params=query)
            return {process["process"] for process in answer.json()["items"]}

        # Nothing has started instead of them.
        gone = {"registry_service.worker", "registry_service.audit.sealing"}
        assert {name for name, one in found.items() if one["has_problem"]} == gone
        assert await listed(has_problem="true") == gone
        assert await listed(has_problem="false") == found.keys() - gone
        assert await listed(state="running") == found.keys() - gone
        assert await listed(state="lost", has_problem="true") == {"registry_service.worker"}
        assert await listed(state="ended") == {"registry_service.audit.sealing"}
        assert await listed(state="ended", has_problem="false") == set()
        for query in ({"state": "gone"}, {"has_problem": "x"}):
            assert (await stack.admin("GET", "/system/processes", params=query)).is_client_error


def reporter(database: Database, probes: Probes, states: States) -> Reporter:
    return Reporter([WorkerConfig(database_url=database.url("mooring_registry"))], probes, states)


@contextlib.asynccontextmanager
async def working(
    database: Database, states: States, turn: Callable[[], Awaitable[float]]
) -> AsyncIterator[None]:
    """A process with one loop, in this process."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Turn]:
        yield turn

    engine = engine_of(database.url("mooring_registry"), pool_size=1)
    probes = Probes()
    probes.ready_when(states.readiness)
    probes.begin()
    looping = asyncio.create_task(loops.run([Loop("one", opened)], states))
    try:
        write = process_table.writer(engine)
        async with reported(reporter(database, probes, states), write):
            yield
    finally:
        looping.cancel()
        await asyncio.wait([looping])
        await engine.dispose()


async def test_the_last_success_of_a_loop_moves_and_its_failure_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "REPORT_S", 0.05)
    monkeypatch.setattr(reporting, "LOOK_S", 0.05)
    monkeypatch.setattr(loops, "FIRST_PAUSE_S", 0.01)
    is_broken = False

    async def turn() -> float:
        if is_broken:
            raise Forbidden("no more", reason="NO_MORE")
        return 0.01

    async def loop() -> dict[str, Any]:
        rows = database.execute("SELECT loops -> 'one', is_ready FROM processes")
        return {**rows[0][0], "is_ready": rows[0][1]} if rows and rows[0][0] else {}

    async with working(database, States(), turn):
        first = await until(lambda: _if(loop, lambda one: one.get("succeeded_at")))
        later = await until(
            lambda: _if(loop, lambda one: one["succeeded_at"] > first["succeeded_at"])
        )
        assert later["is_ready"]
        is_broken = True
        failing = await until(lambda: _if(loop, lambda one: one["failing_since"]))
        assert (failing["problem"], failing["is_ready"]) == ("NO_MORE", False)
        stays = await until(lambda: _if(loop, lambda one: one["problem"]))
        assert stays["failing_since"] == failing["failing_since"]
        assert stays["succeeded_at"] == failing["succeeded_at"] >= later["succeeded_at"]
        is_broken = False
        mended = await until(lambda: _if(loop, lambda one: not one["problem"]))
        assert mended["failing_since"] is None


async def _if(
    read: Callable[[], Awaitable[dict[str, Any]]], test: Callable[[dict[str, Any]], Any]
) -> dict[str, Any]:
    found = await read()
    return found if found and test(found) else {}


async def test_a_table_that_is_broken_does_not_harm_the_process(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "REPORT_S", 0.05)
    monkeypatch.setattr(reporting, "LOOK_S", 0.05)
    turns = 0

    async def turn() -> float:
        nonlocal turns
        turns += 1
        return 0.01

    async def has_gone_on(than: int) -> bool:
        return turns > than + 20

    database.execute("ALTER TABLE processes RENAME TO elsewhere")
    states = States()
    async with working(database, states, turn):
        begun = turns
        await until(lambda: has_gone_on(begun))
        assert (await states.readiness())[0]
        database.execute("ALTER TABLE elsewhere RENAME TO processes")

        async def has_reported() -> bool:
            return bool(database.execute("SELECT id FROM processes WHERE is_ready"))

        await until(has_reported)
        # A lock that is not given up: the process ends all the same.
        database.execute("REVOKE ALL ON processes FROM mooring_registry")
    assert database.execute("SELECT ended_at FROM processes") == [(None,)]


async def test_a_process_without_its_database_ends_in_time(database: Database) -> None:
    async def hang(_: reporting.Report) -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_S / 2):
        async with reported(reporter(database, Probes(), States()), hang):
            pass


async def test_rows_of_processes_that_are_gone_are_forgotten(database: Database) -> None:
    database.execute("""
        INSERT INTO processes (id, process, host, pid, version, started_at, seen_at, ended_at,
                               is_ready, checks, loops, configuration)
        SELECT gen_random_uuid(), name, 'h', n, '1', now(), now() - age, ended, true,
               '{}', '{}', '{}'
        FROM generate_series(1, 80) AS n, (VALUES
            ('runs', interval '1 s', NULL::timestamptz),
            ('restarts', interval '1 s', now()),
            ('lost', interval '1 hour', NULL),
            ('old', interval '25 hours', NULL)
        ) AS kind (name, age, ended)
    """)
    engine = engine_of(database.url("mooring_registry"), pool_size=1)
    try:
        await ProcessStore(engine).forget()
    finally:
        await engine.dispose()
    rows = database.execute("SELECT process, count(*) FROM processes GROUP BY process")
    assert dict(rows) == {"runs": 80, "restarts": KEPT_OF_A_NAME, "lost": KEPT_OF_A_NAME}


async def test_lists_are_in_pages(stack: Stack) -> None:
    async def all_three() -> bool:
        return len(await processes(stack)) == 3

    await until(all_three)
    found, cursor = [], ""
    while True:
        answer = await stack.admin(
            "GET", "/system/processes", params={"limit": "1", "cursor": cursor}
        )
        page = answer.json()
        found += [process["process"] for process in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    assert found == ["broker_service", "gateway", "registry_service"]


async def report(stack: Stack, **changes: Any) -> None:
    request = pb.ReportProcessRequest(
        id="0b7d3f7e-1f52-4f0a-a7c4-3d9a6d1d5c60", host="h", pid=1, version="1"
    )
    request.started_at.GetCurrentTime()
    for name, value in changes.items():
        if isinstance(value, dict):
            getattr(request, name).update(value)
        else:
            setattr(request, name, value)
    await stack.registry.ask(
        system_pb2_grpc.SystemServiceStub, "ReportProcess", request, actor=None
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "x"},
        {"host": ""},
        {"host": "h" * 256},
        {"version": "\0"},
        {"pid": -1},
        {"checks": {"a\0": "serving"}},
        {"configuration": {"A": "\x01"}},
        {"configuration": {str(n): "x" * 900 for n in range(50)}},
    ],
)
async def test_a_report_that_cannot_be_stored_is_refused(
    stack: Stack, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        await report(stack, **changes)


async def test_a_gateway_cannot_replace_the_report_of_another_process(stack: Stack) -> None:
    def rows() -> list[Any]:
        return stack.database.execute(
            "SELECT id, process, host, pid FROM processes WHERE process <> 'gateway'"
        )

    async def both() -> bool:
        return len(rows()) == 2

    await until(both)
    before = rows()
    for process_id, *_ in before:
        with contextlib.suppress(InvalidInput, Forbidden):
            await report(stack, id=str(process_id), host="forged")
    assert rows() == before


async def test_restricted_tokens_do_not_see_processes(stack: Stack) -> None:
    with pytest.raises(Forbidden):
        await stack.registry.ask(
            system_pb2_grpc.SystemServiceStub,
            "ListProcesses",
            pb.ListProcessesRequest(),
            actor=Actor("r", Access.OPERATOR, fleets=frozenset({"demo"})),
        )


@pytest.mark.parametrize("role", ["mooring_broker", "mooring_access", "mooring_sealer"])
async def test_a_role_writes_its_own_rows_only(stack: Stack, role: str) -> None:
    async def all_three() -> bool:
        return len(stack.database.execute("SELECT id FROM processes")) == 3

    await until(all_three)
    engine = engine_of(stack.database.url(role), pool_size=1)
    try:
        found = await reporter(stack.database, Probes(), States()).report()
        await process_table.write(engine, found)
    finally:
        await engine.dispose()
    database = stack.database
    own = database.execute("SELECT id FROM processes WHERE role = %s", role)
    assert database.execute("SELECT id FROM processes", role=role) == own
    forged = database.execute("UPDATE processes SET is_ready = true RETURNING role", role=role)
    assert set(forged) == {(role,)}
    for statement in (
        "UPDATE processes SET role = 'mooring_registry'",
        "DELETE FROM processes",
        """INSERT INTO processes SELECT gen_random_uuid(), 'mooring_registry', process, host, pid,
           version, started_at, seen_at, ended_at, is_ready, checks, loops, configuration
           FROM processes""",
    ):
        with pytest.raises(Exception, match=r"denied|row-level security"):
            database.execute(statement, role=role)
