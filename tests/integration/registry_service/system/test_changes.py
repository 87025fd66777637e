"""Which kinds of things have changed: nothing is missed, in whatever order transactions commit."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import psycopg
import pytest
from mooring.registry.v1 import system_pb2 as pb
from mooring.registry.v1 import system_pb2_grpc

from chassis.database import engine_of, pool_of
from chassis.errors import InvalidInput
from gateway.examples import PARAMETERS
from registry_service.system import change_store
from registry_service.system.change_store import Changed, ChangeStore, OldChanges
from registry_service.system.cursor import Cursor
from registry_service.system.kinds import ALL, NOTED
from tests.integration.gateway.test_document import (
    document_of,
    furnish,
    operations_of,
    secret_for,
    sending,
    turn_of,
)
from tests.stack import Database, Peer, Stack
from tests.stored import Stored

# A statement that changes each kind and waits for no other transaction.
STATEMENTS = {
    "audit": "INSERT INTO audit_log (actor, actor_id, action, subject, request_id)"
    " VALUES ('', '', 'a.b', {n}::text, '')",
    "tokens": "INSERT INTO api_tokens (name, token_hash, role)"
    " VALUES ({n}::text, int8send({n}), 'viewer')",
    "service_accounts": "INSERT INTO service_accounts (username, password_hash, password_salt)"
    " VALUES ('n' || {n}, '', '')",
    "expected_devices": "INSERT INTO expected_devices (uuid, fleet_id) VALUES ('e' || {n}, 'demo')",
    "enforcement": "INSERT INTO revocations (username, device_uuid, broker_id, reason)"
    " VALUES ('n' || {n}, '', 1, 'deleted')",
}
# Tables whose changes are of no kind: what loops and processes keep for themselves, and what
# follows from changes that are noted.
NOT_NOTED = {
    *("alembic_version", "turns", "leases", "kind_changes", "kind_changes_kept"),
    *("access_changes", "placement_changes", "placement_version", "device_count_changes"),
    *("api_key_failures", "audit_seals", "device_counts", "driven_clients", "fleet_revocations"),
    *("job_rows", "local_brokers_kept", "mqtt_broker_history", "pool_history"),
    # What processes and devices report all the time.
    *("broker_last_probes", "broker_probes", "broker_state_history", "device_reports"),
    "health_control",
    # What a person uses to sign in at the console.
    *("console_sessions", "sign_in_codes"),
}


@asynccontextmanager
async def storing(database: Database) -> AsyncIterator[ChangeStore]:
    async with pool_of(database.url("mooring_registry")) as pool:
        yield ChangeStore(pool)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[ChangeStore]:
    database.execute("INSERT INTO fleets (id, name) VALUES ('demo', 'demo')")
    broker = (
        "INSERT INTO mqtt_broker_config (name, protocol, host, port) VALUES (%s, 'mqtt', %s, 1)"
    )
    database.execute(broker, "broker", "host")
    async with storing(database) as found:
        yield found


async def kinds_since(store: ChangeStore, cursor: Cursor) -> set[str]:
    changed = await store.since(cursor)
    assert not changed.is_everything
    return set(changed.kinds)


async def now(store: ChangeStore) -> Cursor:
    return (await store.since(None)).cursor


async def test_a_change_that_commits_after_a_later_one_is_not_missed(
    store: ChangeStore, database: Database
) -> None:
    with psycopg.connect(database.url("mooring")) as first:
        first.execute(STATEMENTS["audit"].format(n=1).encode())
        database.execute(STATEMENTS["tokens"].format(n=2))
        between = await now(store)
        assert await kinds_since(store, between) == set()
        database.execute(STATEMENTS["service_accounts"].format(n=3))
        later = await store.since(between)
        assert later.kinds == ["service_accounts"]
        first.commit()
    assert await kinds_since(store, between) == {"audit", "service_accounts"}
    assert await kinds_since(store, later.cursor) == {"audit"}


@pytest.mark.parametrize("seed", range(4))
async def test_kinds_are_those_that_were_committed_between_two_cursors(
    store: ChangeStore, database: Database, seed: int
) -> None:
    """Transactions of several sessions in any order, with rollbacks and savepoints."""
    drawn, numbers = random.Random(seed), count(1)  # noqa: S311
    sessions = [psycopg.connect(database.url("mooring")) for _ in range(4)]
    open_kinds: list[set[str]] = [set() for _ in sessions]
    # Each cursor with the kinds that were committed since.
    cursors: list[tuple[Cursor, set[str]]] = [(await now(store), set())]
    try:
        for _ in range(120):
            which = drawn.randrange(len(sessions))
            session, kinds = sessions[which], open_kinds[which]
            match drawn.choice(["change", "change", "nested", "commit", "rollback", "ask"]):
                case "change":
                    kind = drawn.choice(sorted(STATEMENTS))
                    session.execute(STATEMENTS[kind].format(n=next(numbers)).encode())
                    kinds.add(kind)
                case "nested":
                    kind = drawn.choice(sorted(STATEMENTS))
                    is_kept = drawn.random() < 0.5
                    with session.transaction(force_rollback=not is_kept):
                        session.execute(STATEMENTS[kind].format(n=next(numbers)).encode())
                    # Outside of a transaction the block is one by itself.
                    if is_kept and session.info.transaction_status.name == "IDLE":
                        for _, committed in cursors:
                            committed.add(kind)
                    elif is_kept:
                        kinds.add(kind)
                case "commit":
                    session.commit()
                    for _, committed in cursors:
                        committed |= kinds
                    kinds.clear()
                case "rollback":
                    session.rollback()
                    kinds.clear()
                case "ask":
                    # What a cursor did not see is reported once: to the cursor after it no more.
                    for cursor, committed in cursors[-5:]:
                        assert await kinds_since(store, cursor) == committed
                    cursors.append((await now(store), set()))
    finally:
        for session in sessions:
            session.close()
    assert len(cursors) > 5


def test_every_table_is_noted_or_of_no_kind(database: Database) -> None:
    noted = database.execute("""
        SELECT relname, array_agg(DISTINCT substring(tgname FROM 'noted_([a-z]+)$'))
        FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        WHERE tgfoid = 'note_kind'::regproc GROUP BY relname
    """)
    tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {name for (name,) in tables} - NOT_NOTED == {name for name, _ in noted}
    for name, operations in noted:
        expected = {"new"} if name == "audit_log" else {"new", "changed", "gone", "truncated"}
        assert set(operations) == expected, name


def test_every_kind_that_triggers_note_is_known(database: Database) -> None:
    arguments = database.execute("""
        SELECT DISTINCT split_part(encode(tgargs, 'escape'), '\\000', 1) FROM pg_trigger
        WHERE tgfoid = 'note_kind'::regproc
    """)
    assert {name for (name,) in arguments} <= NOTED.keys()


async def test_what_touches_no_row_or_says_little_is_not_noted(
    store: ChangeStore, database: Database
) -> None:
    database.execute(STATEMENTS["tokens"].format(n=1))
    database.execute("INSERT INTO provisioning_keys (key_hash, fleet_id) VALUES ('k', 'demo')")
    before = await now(store)
    for statement in (
        "UPDATE api_tokens SET last_used_at = now()",
        "UPDATE provisioning_keys SET last_used_at = now(), devices_provisioned = 1",
        "UPDATE devices SET device_name = 'x' WHERE id < 0",
        "DELETE FROM jobs WHERE id < 0",
        "DELETE FROM service_accounts WHERE username = ''",
        "UPDATE mqtt_broker_config SET name = name WHERE false",
    ):
        database.execute(statement)
    assert await kinds_since(store, before) == set()
    database.execute("UPDATE api_tokens SET is_active = false")
    database.execute("UPDATE provisioning_keys SET is_active = false")
    assert await kinds_since(store, before) == {"tokens", "provisioning_keys"}


async def test_a_lost_process_is_noted_once_by_the_next_report(
    store: ChangeStore, database: Database
) -> None:
    begun = "timestamptz '2026-01-01 12:00Z'"
    for role, ago, ended in (
        ("mooring_broker", 0, "NULL"),
        ("mooring_registry", 25, "NULL"),
        # That it ended was noted before.
        ("mooring_registry", 15, begun),
    ):
        database.execute(
            "INSERT INTO processes (id, process, host, pid, version, started_at, seen_at, ended_at,"
            " is_ready, checks, loops, configuration) VALUES (gen_random_uuid(), 'p', 'h', 1, '1',"
            f" {begun}, {begun} - interval '{ago} s', {ended}, true, '{{}}', '{{}}', '{{}}')",
            role=role,
        )
    # The report of a role that sees its own rows only.
    for after, is_noted in ((4, False), (6, True), (16, False), (26, False), (7_200, False)):
        before = await now(store)
        database.execute(
            f"UPDATE processes SET seen_at = {begun} + interval '{after} s'", role="mooring_broker"
        )
        assert await kinds_since(store, before) == ({"processes"} if is_noted else set()), after


async def test_an_operator_s_sql_is_noted(store: ChangeStore, database: Database) -> None:
    before = await now(store)
    database.execute("UPDATE fleets SET is_active = false", role="mooring_operator")
    assert "fleets" in await kinds_since(store, before)


async def test_old_changes_are_forgotten_and_cursors_from_before_them_too(
    store: ChangeStore, database: Database
) -> None:
    engine = engine_of(database.url("mooring_registry"), pool_size=1)
    old = OldChanges(engine)
    try:
        first = await now(store)
        database.execute(STATEMENTS["audit"].format(n=1))
        await old.forget()
        assert await kinds_since(store, first) == {"audit"}
        # The time is noted that the cursor is from before, and then what is older is deleted.
        for _ in range(2):
            database.execute("UPDATE kind_changes_kept SET noted_at = noted_at - interval '11 min'")
            await old.forget()
        assert (await store.since(first)).is_everything
        assert not database.execute("SELECT kind FROM kind_changes WHERE kind = 'audit'")
        second = await now(store)
        database.execute(STATEMENTS["tokens"].format(n=2))
        assert await kinds_since(store, second) == {"tokens"}
    finally:
        await engine.dispose()


async def test_a_transaction_that_is_open_longer_than_changes_are_kept_is_not_missed(
    store: ChangeStore, database: Database
) -> None:
    engine = engine_of(database.url("mooring_registry"), pool_size=1)
    old = OldChanges(engine)
    try:
        with psycopg.connect(database.url("mooring")) as slow:
            slow.execute(STATEMENTS["audit"].format(n=1).encode())
            before = await now(store)
            for _ in range(4):
                database.execute(
                    "UPDATE kind_changes_kept SET noted_at = noted_at - interval '11 min'"
                )
                await old.forget()
            slow.commit()
        changed = await store.since(before)
        assert changed.is_everything or "audit" in changed.kinds
    finally:
        await engine.dispose()


async def test_a_dump_that_was_loaded_into_another_server_heals(
    store: ChangeStore, database: Database
) -> None:
    """There, the numbers of transactions are larger than any that this server has had."""
    before = await now(store)
    database.execute("INSERT INTO kind_changes VALUES ('jobs', %s)", 10**15)
    assert await kinds_since(store, before) == set()
    database.execute(
        "UPDATE kind_changes_kept SET kept_from = %s, next_kept_from = %s", 10**15, 10**15
    )
    assert (await store.since(before)).is_everything
    engine = engine_of(database.url("mooring_registry"), pool_size=1)
    try:
        await OldChanges(engine).forget()
    finally:
        await engine.dispose()
    assert not database.execute("SELECT kind FROM kind_changes WHERE xid = %s", 10**15)
    healed = await now(store)
    database.execute(STATEMENTS["tokens"].format(n=1))
    assert await kinds_since(store, healed) == {"tokens"}


async def test_a_cursor_of_another_history_means_that_everything_may_have_changed(
    store: ChangeStore,
) -> None:
    cursor = await now(store)
    for other in (
        Cursor("1-2-00000001", cursor.first, cursor.next, cursor.open),
        Cursor(cursor.epoch, cursor.first, cursor.next + 10**9, ()),
        Cursor(cursor.epoch, 0, 0, ()),
    ):
        found = await store.since(other)
        assert found == Changed(found.cursor, (), is_everything=True)
        assert found.cursor.epoch == cursor.epoch


async def test_the_question_reads_a_few_pages_however_much_has_changed(
    store: ChangeStore, database: Database
) -> None:
    database.execute("""
        INSERT INTO kind_changes
        SELECT kind, -number FROM unnest(%s::text[]) AS kind, generate_series(1, 20000) AS number
    """, list(NOTED))  # fmt: skip
    database.execute("ANALYZE kind_changes")
    first = await now(store)
    # As many transactions are open as there may be connections, and none of them changed anything.
    between = list(range(first.next - 100, first.next))
    statement = change_store.SINCE.replace("%s", "{}").format(
        f"'{change_store.KINDS}'", first.next, f"'{{{','.join(map(str, between))}}}'"
    )
    with psycopg.connect(database.url("mooring_registry"), autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
        [[plan]] = connection.execute(explain.encode()).fetchall()
    used = plan[0]["Plan"]
    assert used["Shared Hit Blocks"] + used["Shared Read Blocks"] < 1_000, plan


def peer_kinds(response: pb.ChangesSinceResponse) -> set[str]:
    return {
        pb.ChangeKind.Name(kind).removeprefix("CHANGE_KIND_").lower() for kind in response.kinds
    }


async def asked(peer: Peer, cursor: str, within_ms: int = 0) -> pb.ChangesSinceResponse:
    response: pb.ChangesSinceResponse = await peer.ask(
        system_pb2_grpc.SystemServiceStub,
        "ChangesSince",
        pb.ChangesSinceRequest(cursor=cursor, within_ms=within_ms),
        actor=None,
    )
    return response


async def test_cursors_are_good_at_every_replica_and_after_a_restart(stack: Stack) -> None:
    begun = await asked(stack.registry, "")
    assert (list(begun.kinds), begun.is_everything) == ([], False)
    assert (await stack.register("one")).status_code == 201
    registration = {"registrations", "devices", "provisioning_keys", "server_keys"}
    assert registration <= peer_kinds(await asked(stack.registry, begun.cursor))
    # A replica that is started later is what a restarted one is.
    other = await stack.another_registry()
    found = await asked(other, begun.cursor)
    assert registration <= peer_kinds(found)
    assert not found.is_everything
    pinned = await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": 1})
    assert pinned.status_code == 200
    for peer in (stack.registry, other):
        assert {"devices", "audit"} <= peer_kinds(await asked(peer, found.cursor))


async def test_a_question_waits_for_a_change(stack: Stack) -> None:
    cursor = (await asked(stack.registry, "")).cursor
    # Earlier changes of other processes may come first.
    while peer_kinds(found := await asked(stack.registry, cursor, within_ms=1_000)):
        cursor = found.cursor
    await stack.create_fleet("another")
    assert {"fleets", "rollouts"} <= peer_kinds(await asked(stack.registry, found.cursor, 1_000))


@pytest.mark.parametrize("cursor", ["x", "1-1-00000001.5:4:", "0" * 70_000, "\0"])
async def test_any_other_text_as_a_cursor_means_that_everything_may_have_changed(
    stack: Stack, cursor: str
) -> None:
    found = await asked(stack.registry, cursor)
    assert found.is_everything
    assert list(found.kinds) == list(ALL)
    assert not (await asked(stack.registry, found.cursor)).is_everything


async def test_a_wait_is_bounded(stack: Stack) -> None:
    for within_ms in (-1, 1_001):
        with pytest.raises(InvalidInput):
            await asked(stack.registry, "", within_ms)


def noted_in(stored: Stored) -> dict[str, tuple[int, int]]:
    """The contents of the tables whose changes are of a kind."""
    return {name: found for name, found in stored.now().items() if name not in NOT_NOTED}


@pytest.mark.heavy
async def test_whatever_a_route_stores_is_noted(stack: Stack) -> None:
    """Sends the example of each operation, as the documentation has it."""
    await furnish(stack)
    changed = 0
    with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
        stored = Stored(connection)
        operations = operations_of(await document_of(stack))
        for path, method, operation in sorted(operations, key=lambda one: turn_of(one[1], one[0])):
            url = path.format(**PARAMETERS)
            secret = secret_for(stack, operation, stack.admin_token)
            cursor, before = (await asked(stack.registry, "")).cursor, noted_in(stored)
            await stack.http.request(method.upper(), url, **sending(operation, secret))
            if noted_in(stored) != before:
                changed += 1
                kinds = peer_kinds(await asked(stack.registry, cursor))
                assert kinds - {"audit", "processes", "series", "timelines"}, (method, path)
    assert changed > 20
