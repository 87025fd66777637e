"""What a stolen role of the database cannot do: each test connects as a client and tries."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

import migrations
from chassis.database import engine_of
from registry_service.admission.reader_store import ReaderStore
from tests.stack import ROLES, Database

DENIED = "42501"
# Statements that do not help an attacker with a stolen role.
ATTEMPTS = (
    "SELECT lo_create(0)",
    "SELECT lo_creat(-1)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_put(1, 0, 'x')",
    "CREATE TEMPORARY TABLE mine (x integer)",
    "CREATE TABLE mine (x integer)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "SELECT pg_advisory_lock(7305812)",
    "SELECT pg_advisory_xact_lock_shared(7305812)",
    "SELECT pg_try_advisory_lock(1, 2)",
    "SELECT pg_export_snapshot()",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/stolen'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('.')",
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_reload_conf()",
    "ALTER SYSTEM SET fsync = off",
    "ALTER ROLE CURRENT_USER CONNECTION LIMIT -1",
    "CREATE ROLE mine",
    "SET ROLE mooring",
    "SET SESSION AUTHORIZATION mooring",
    "BEGIN; LOCK TABLE devices IN SHARE MODE; COMMIT",
    "BEGIN; LOCK TABLE alembic_version IN ROW EXCLUSIVE MODE; COMMIT",
    "BEGIN; LOCK TABLE placement_version IN ROW EXCLUSIVE MODE; COMMIT",
    "TRUNCATE turns",
    "DELETE FROM turns",
    "UPDATE turns SET name = 'mine'",
)
# Waits for a lock that changes need.
TURNS = (
    "SELECT FROM turns FOR UPDATE",
    "SELECT FROM turns FOR SHARE",
    "SELECT FROM turns FOR KEY SHARE",
)


@pytest.fixture(autouse=True)
def contained(database: Database) -> None:
    """Sets the rights on the database, which a copy does not have from its template."""
    migrations.upgrade(database.url("mooring"))


def refusal(database: Database, role: str, statement: str) -> str:
    """The SQLSTATE of the error; empty if the role may."""
    with psycopg.connect(database.url(role), autocommit=True) as connection:
        return refused(connection, statement)


def refused(connection: psycopg.Connection, statement: str) -> str:
    try:
        connection.execute(statement.encode())
    except psycopg.Error as error:
        connection.rollback()
        return error.sqlstate or "?"
    return ""


@pytest.mark.parametrize("role", ROLES)
def test_a_role_cannot(database: Database, role: str) -> None:
    expected = dict.fromkeys(ATTEMPTS, DENIED)
    services = ("mooring_broker", "mooring_registry")
    if role in services:
        # It may lock the rows, and so may update them, but only to their present values.
        expected["UPDATE turns SET name = 'mine'"] = "23514"
    if role == "mooring_registry":
        expected["BEGIN; LOCK TABLE devices IN SHARE MODE; COMMIT"] = ""
    turn = "" if role in services else DENIED
    expected |= dict.fromkeys(TURNS, turn)
    with psycopg.connect(database.url(role), autocommit=True) as connection:
        found = {statement: refused(connection, statement) for statement in expected}
    assert found == expected


def test_no_role_has_an_attribute_of_a_superuser(database: Database) -> None:
    query = """
        SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)
          AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
    """
    assert database.execute(query, list(ROLES)) == []


def test_a_reader_does_not_see_statements_of_others(database: Database) -> None:
    query = "SELECT DISTINCT query FROM pg_stat_activity WHERE usename <> current_user"
    with psycopg.connect(database.url("mooring_registry")):
        seen = {row[0] for row in database.execute(query, role="mqtt_reader")}
    assert seen <= {"<insufficient privilege>"}


@pytest.fixture
def crowded(database: Database) -> Iterator[list[psycopg.Connection]]:
    """Opens all the connections that mqtt_reader may have."""
    with ExitStack() as exits:
        held: list[psycopg.Connection] = []
        while len(held) < 50:
            try:
                opened = psycopg.connect(database.url("mqtt_reader"))
            except psycopg.OperationalError:
                break
            held.append(exits.enter_context(opened))
        yield held


def test_a_reader_does_not_take_every_connection(
    database: Database, crowded: list[psycopg.Connection]
) -> None:
    assert len(crowded) == 16
    assert database.execute("SELECT 1", role="mooring_registry") == [(1,)]


async def test_a_transaction_of_a_reader_does_not_stay_open(database: Database) -> None:
    """This holds whatever timeouts it sets; sessions of other roles go on."""
    engine = engine_of(database.url("mooring_registry"), pool_size=1)
    with (
        psycopg.connect(database.url("mqtt_reader"), autocommit=True) as quiet,
        psycopg.connect(database.url("mqtt_reader")) as held,
        psycopg.connect(database.url("mooring_operator")) as other,
    ):
        held.execute("SET idle_in_transaction_session_timeout = 0")
        other.execute("SELECT 1")
        began = time.monotonic()
        while await ReaderStore(engine, 0.5, 3600).end() == 0:
            assert time.monotonic() - began < 20
        with pytest.raises(psycopg.errors.AdminShutdown):
            held.execute("SELECT 1")
        quiet.execute("SELECT 1")
        other.execute("SELECT 1")
        while await ReaderStore(engine, 3600, 0.5).end() == 0:
            assert time.monotonic() - began < 20
        with pytest.raises(psycopg.OperationalError):
            quiet.execute("SELECT 1")
        other.execute("SELECT 1")
    await engine.dispose()
    assert refusal(database, "mqtt_reader", "SELECT end_long_readers(0, 0)") == "42501"
