"""`local.postgres`, which starts PostgreSQL, with real servers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import psycopg
import pytest

from local.cluster import wheel_bin
from local.database import bring_up_to_date
from local.errors import CannotRun
from local.locks import locked
from local.postgres import Postgres, free_port, prepare

PASSWORD = "p/ä:s@s wörd"  # what a URL must quote

# Long enough for two busy cores.
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A running server for tests that change nothing."""
    with Postgres(tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture
def copied(shared: Postgres, tmp_path: Path) -> Iterator[Postgres]:
    """A server of the test's own, not started; copying its data is faster than making it."""
    shared.stop()
    shutil.copytree(shared.data.parent, tmp_path / "postgres")
    shared.start()
    server = Postgres(tmp_path)
    yield server
    server.stop()


def value(server: Postgres, query: str) -> object:
    with psycopg.connect(server.superuser_url()) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def processes_on(data: Path) -> dict[int, list[str]]:
    """The commands that name `data`, by process id: its postmaster or its initdb."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # The process has ended.
                found[int(entry.name)] = (
                    (entry / "cmdline").read_text("utf-8", "replace").split("\0")
                )
    return {pid: command for pid, command in found.items() if str(data) in command}


def wait_for_the_end_of(server: Postgres) -> None:
    """Returns when no process of `server` is left: the last one releases the lock."""
    lock = locked(server.data.with_name("lock"), PATIENCE_S)
    assert lock is not None
    os.close(lock)
    assert not processes_on(server.data)


def test_settings(shared: Postgres) -> None:
    assert value(shared, "SHOW fsync") == "on"
    assert value(shared, "SHOW full_page_writes") == "on"
    assert value(shared, "SHOW server_encoding") == "UTF8"
    assert value(shared, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C"
    assert value(shared, "SHOW unix_socket_directories") == ""


def test_it_listens_on_loopback_only(shared: Postgres) -> None:
    assert value(shared, "SHOW listen_addresses") == "127.0.0.1"
    listening = "0A"
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        if (file := Path("/proc/net", table)).exists()
        for line in file.read_text().splitlines()[1:]
    ]
    port = f"{shared.port:04X}"
    ours = [row[1] for row in rows if row[3] == listening and row[1].endswith(f":{port}")]
    assert ours == [f"0100007F:{port}"]


def test_a_password_is_required(shared: Postgres) -> None:
    url = prepare(shared, PASSWORD)
    with psycopg.connect(url) as connection:
        assert connection.pgconn.used_password
        assert connection.execute("SELECT current_user").fetchone() == ("mooring",)
    for refused in (
        shared.url("mooring", "wrong", "mooring"),
        shared.url("postgres", "", "postgres"),
    ):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(refused)
    stored = value(shared, "SELECT rolpassword FROM pg_authid WHERE rolname = 'mooring'")
    assert str(stored).startswith("SCRAM-SHA-256$")
    rules = value(shared, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules")
    assert rules == ["scram-sha-256"]


def test_prepare_is_idempotent(shared: Postgres) -> None:
    prepare(shared, "first")
    url = prepare(shared, PASSWORD)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE ROLE made_by_mooring")
        connection.rollback()
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'mooring'"
    assert value(shared, owner) == "mooring"


def test_only_the_owner_can_read_secrets(shared: Postgres) -> None:
    prepare(shared, PASSWORD)
    password_file = shared.data.with_name("superuser-password")
    assert password_file.stat().st_mode & 0o777 == 0o600
    assert shared.log.stat().st_mode & 0o777 == 0o600
    assert shared.data.stat().st_mode & 0o777 == 0o700
    logged = shared.log.read_text()
    assert PASSWORD not in logged
    assert password_file.read_text() not in logged


def test_data_and_port_stay_after_a_stop(copied: Postgres) -> None:
    copied.start()
    port = copied.port
    with psycopg.connect(copied.superuser_url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    copied.stop()
    assert not processes_on(copied.data)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(copied.superuser_url())
    copied.start()
    assert copied.port == port
    assert value(copied, "SELECT answer FROM kept") == 42


def test_stopping_is_clean_and_may_be_repeated(copied: Postgres) -> None:
    copied.stop()
    copied.start()
    copied.stop()
    copied.stop()
    assert "database system is shut down" in copied.log.read_text()


def test_a_killed_server_starts_again(copied: Postgres) -> None:
    copied.start()
    with psycopg.connect(copied.superuser_url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(copied.pid, signal.SIGKILL)
    copied.start()
    assert value(copied, "SELECT answer FROM kept") == 42


def test_a_stale_pid_of_another_program_does_not_prevent_a_start(copied: Postgres) -> None:
    copied.start()
    pid_file = copied.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines(keepends=True)
    copied.stop()
    # After a container restarts, the id may be another process's; here it is this test's.
    lines[0] = f"{os.getpid()}\n"
    pid_file.write_text("".join(lines))
    shutil.chown(pid_file, copied.data.stat().st_uid, copied.data.stat().st_gid)
    copied.start()
    assert value(copied, "SELECT 1") == 1


def test_another_server_on_the_same_data_is_refused(
    copied: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.postgres.LOCK_PATIENCE_S", 0.0)
    copied.start()
    with pytest.raises(CannotRun, match="another PostgreSQL is running on"):
        Postgres(tmp_path).start()
    assert value(copied, "SELECT 1") == 1


def test_data_of_another_major_version_is_not_touched(copied: Postgres) -> None:
    (copied.data / "PG_VERSION").write_text("13\n")
    before = {path: path.stat().st_mtime_ns for path in copied.data.rglob("*")}
    with pytest.raises(CannotRun, match="was made by PostgreSQL 13 and this is 18") as refusal:
        copied.start()
    assert "\n" not in str(refusal.value)
    assert {path: path.stat().st_mtime_ns for path in copied.data.rglob("*")} == before


def test_a_folder_of_another_program_is_not_touched(tmp_path: Path) -> None:
    server = Postgres(tmp_path)
    server.data.mkdir(parents=True)
    (server.data / "letter.txt").write_text("dear")
    with pytest.raises(CannotRun, match="is no PostgreSQL data"):
        server.start()
    assert [path.name for path in server.data.iterdir()] == ["letter.txt"]


def test_an_initdb_that_was_killed_is_run_again(tmp_path: Path) -> None:
    program = dedent(
        """
        import sys, pathlib
        from local.postgres import Postgres
        Postgres(pathlib.Path(sys.argv[1])).start()
        """
    )
    server = Postgres(tmp_path)
    unfinished = server.data.with_name("data.unfinished")
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as starter:
        while not (unfinished / "PG_VERSION").exists():
            with pytest.raises(subprocess.TimeoutExpired):
                starter.wait(0.005)
        # initdb removes its files when it can; when it is killed, it cannot.
        for pid in (starter.pid, *processes_on(unfinished)):
            os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(server)
    assert unfinished.exists()
    assert not server.data.exists()
    with server:
        assert value(server, "SELECT 1") == 1
    assert not unfinished.exists()


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_parent(copied: Postgres, tmp_path: Path, way: signal.Signals) -> None:
    program = dedent(
        """
        import signal, sys, pathlib
        from local.postgres import Postgres
        Postgres(pathlib.Path(sys.argv[1])).start()
        print("started", flush=True)
        signal.pause()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        assert len(processes_on(copied.data)) == 1
        parent.send_signal(way)
    wait_for_the_end_of(copied)
    assert "database system is shut down" in copied.log.read_text()


def test_a_taken_port_is_named(copied: Postgres, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        with pytest.raises(CannotRun, match=f"^port {port} for PostgreSQL is taken"):
            Postgres(tmp_path, port).start()
    assert not processes_on(copied.data)


def test_another_free_port_is_tried(copied: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        ports = iter([squatter.getsockname()[1], free_port()])
        monkeypatch.setattr("local.postgres.free_port", lambda: next(ports))
        copied.start()
    assert value(copied, "SELECT 1") == 1


def test_a_lost_superuser_password_is_reported(copied: Postgres) -> None:
    copied.data.with_name("superuser-password").write_text("another")
    with pytest.raises(CannotRun, match=r"refuses the login: .*password authentication failed"):
        copied.start()
    assert not processes_on(copied.data)


def test_programs_of_another_folder(copied: Postgres, tmp_path: Path) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.symlink_to(wheel_bin())
    with Postgres(tmp_path, bin_dir=bin_dir) as server:
        assert processes_on(copied.data)[server.pid][0] == str(bin_dir / "postgres")
        assert value(server, "SELECT 1") == 1


def test_the_log_of_the_previous_run_is_kept(copied: Postgres) -> None:
    copied.start()
    first = copied.log.read_text()
    copied.stop()
    copied.start()
    assert copied.log.with_name("postgres.log.1").read_text().startswith(first)


def test_a_database_that_is_too_old_is_refused(
    shared: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.database.OLDEST", 99)
    with pytest.raises(CannotRun, match=r"^the database is PostgreSQL 18; 99 is the oldest$"):
        bring_up_to_date(shared.superuser_url(), {})
