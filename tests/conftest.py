"""A real PostgreSQL for the run, a database for each test, the services on port 0."""

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

import migrations
from local.postgres import Postgres, prepare
from tests.broker_versions import VERSIONS, Version
from tests.rabbitmq import Rabbitmq, running
from tests.stack import ROLES, Database, Stack, seeded, started

# A busy machine may stop for longer than hypothesis's deadline for an example.
settings.register_profile("busy", deadline=None)
# Tries the same examples each time: what fails in the checks of a change is then due to the change.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("busy")

# A file system in memory, and how much memory must be free for it.
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own there
ROOM_BYTES = 4 * 2**30
# How long closed sessions may take to end.
UNUSED_S = 0.1
# The sessions of a database, and those that have not told their database yet.
SESSIONS = """
SELECT FROM pg_stat_activity
WHERE datname = %s OR (datname IS NULL AND backend_type = 'client backend')
"""


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the tests' files in memory if there is room, because tests make and drop many
    databases.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ and _has_room():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs tests with the marker with every version of their broker, and others with one."""
    marker = metafunc.definition.get_closest_marker("every_version")
    for broker, versions in VERSIONS.items():
        if (name := f"{broker}_version") in metafunc.fixturenames:
            chosen = [
                pytest.param(
                    version,
                    id="everyday" if version.is_everyday else version.number,
                    marks=() if version.is_everyday else pytest.mark.heavy,
                )
                for version in (versions if marker else versions[:1])
            ]
            metafunc.parametrize(name, chosen, indirect=True)


def pytest_collection_finish() -> None:
    """Makes the garbage collector skip the modules and the tests, which stay until the end.

    Scanning them repeatedly takes a tenth of the time.
    """
    gc.collect()
    gc.freeze()


def _has_room() -> bool:
    if not IN_MEMORY.is_dir() or os.statvfs(IN_MEMORY).f_flag & os.ST_NOEXEC:
        return False
    memory = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()
    free = [int(memory[0]) * 1024, shutil.disk_usage(IN_MEMORY).free]
    return min(free) >= ROOM_BYTES


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The server that all tests of this run share: the wheel's, or the one in TEST_POSTGRES_BIN."""
    other = os.environ.get("TEST_POSTGRES_BIN")
    bin_dir = Path(other) if other else None
    with Postgres(tmp_path_factory.mktemp("postgres"), bin_dir=bin_dir) as server:
        # The data need not survive a crash of the machine.
        with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("ALTER SYSTEM SET full_page_writes = off")
            # New databases are not written through the log, which would fill the memory.
            connection.execute("ALTER SYSTEM SET max_wal_size = '160MB'")
            # Few iterations are enough, because these passwords are random and each test opens
            # dozens of connections.
            if connection.info.server_version >= 160000:
                connection.execute("ALTER SYSTEM SET scram_iterations = 1")
            # Dropping a database waits for every session. A session that a test has frozen during
            # its login answers only after its timeout.
            connection.execute("ALTER SYSTEM SET authentication_timeout = '10s'")
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """A migrated database that is copied for each test; the roles may log in."""
    return migrated(postgres)


def migrated(postgres: Postgres) -> str:
    """Makes the database that `copied` copies, and returns the password of all roles."""
    password = secrets.token_urlsafe()
    owner_url = prepare(postgres, password)
    migrations.upgrade(owner_url)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        for role in ROLES:
            connection.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), password)
            )
    return password


@pytest.fixture(scope="session")
def seed_database(
    postgres: Postgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database that is copied for each stack, so that its first objects are made once."""
    with copied(Database(postgres, "mooring", template)) as made:
        seed = asyncio.run(seeded(made, tmp_path_factory.mktemp("seed")))
        # If this took long, the services have reported themselves.
        made.execute("DELETE FROM processes")
        yield replace(made, seed=seed)


@pytest.fixture
def database(
    request: pytest.FixtureRequest, postgres: Postgres, template: str
) -> Iterator[Database]:
    """An empty database with the schema, and a URL of it for each role; if the test uses a stack,
    it has the stack's first objects.
    """
    if "stack" in request.fixturenames:
        original = request.getfixturevalue("seed_database")
    else:
        original = Database(postgres, "mooring", template)
    with copied(original) as made:
        yield made


@contextlib.contextmanager
def copied(original: Database) -> Iterator[Database]:
    """A copy of a database, with a name of its own."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(original.server.superuser_url(), autocommit=True) as connection:
        identifier, template = sql.Identifier(name), sql.Identifier(original.name)
        # Files are copied with a cache in them, which the first session would have to make again.
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER mooring STRATEGY file_copy").format(
                identifier, template
            )
        )
        yield replace(original, name=name)
        _wait_until_unused(connection, name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def _wait_until_unused(connection: psycopg.Connection, name: str) -> None:
    """Waits a moment for the sessions that are about to end. DROP DATABASE ends the others, but
    looks only ten times a second whether they have ended, and waits for every login.
    """
    deadline = time.monotonic() + UNUSED_S
    while connection.execute(SESSIONS, [name]).rowcount:
        if time.monotonic() > deadline:
            # A pool that is closed while it connects keeps that connection until it is collected.
            gc.collect()
            break
        time.sleep(0.002)


@pytest.fixture
def mosquitto_version(request: pytest.FixtureRequest) -> Version:
    """The version of Mosquitto that the test starts."""
    version: Version = request.param
    return version


@pytest.fixture(scope="session")
def rabbitmq_version(request: pytest.FixtureRequest) -> Version:
    """The version of RabbitMQ that the test uses."""
    version: Version = request.param
    return version


@pytest.fixture(scope="session")
def rabbitmq_of_the_run(
    tmp_path_factory: pytest.TempPathFactory, rabbitmq_version: Version
) -> Iterator[Rabbitmq]:
    """The node that all tests with this version share, because it starts slowly."""
    with running(tmp_path_factory.mktemp("rabbitmq"), version=rabbitmq_version) as node:
        yield node


@pytest.fixture
def rabbitmq(rabbitmq_of_the_run: Rabbitmq) -> Iterator[Rabbitmq]:
    """A node that lets no device in until the test calls `ask_at`."""
    yield rabbitmq_of_the_run
    rabbitmq_of_the_run.forget()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """The services' logs belong to the test that started them."""
    caplog.set_level(logging.INFO)


@pytest.fixture
async def stack(database: Database, tmp_path: Path) -> AsyncIterator[Stack]:
    """The services on one database, with a fleet, a key, a token and a default broker."""
    async with started(database, tmp_path) as running:
        yield running


@pytest.fixture
def gateway_url(stack: Stack) -> str:
    """The URL of the running stack's gateway."""
    return stack.gateway_url


@pytest.fixture
def admin_token(stack: Stack) -> str:
    """An API token with the role admin."""
    return stack.admin_token


@pytest.fixture
def provisioning_key(stack: Stack) -> str:
    """A key of the fleet `demo` without a limit."""
    return stack.provisioning_key
