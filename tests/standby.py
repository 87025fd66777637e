"""A synchronous standby of a test's server."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg

from local.cluster import Cluster, wheel_bin
from local.locks import locked
from local.postgres import Postgres, free_port
from local.privileges import give_away

PATIENCE_S = 60.0


class Standby:
    """Streams from the server, whose commits wait for it."""

    def __init__(self, server: Postgres, home: Path) -> None:
        self._home = home
        self._server = server
        self._cluster = Cluster(home / "data", wheel_bin(), home / "log")
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Copies the server's data."""
        self._home.mkdir(mode=0o755)
        source = f"{self._server.superuser_url()}?application_name=standby"
        subprocess.run(
            [
                *(wheel_bin() / "pg_basebackup", "-d", source, "-D", self._cluster.data),
                *("-R", "-X", "stream", "-c", "fast"),
            ],
            check=True,
            capture_output=True,
        )
        give_away(self._cluster.data)

    def start(self) -> None:
        """Starts it, and returns when the server waits for it."""
        lock = locked(self._home / "lock", 0.0)
        assert lock is not None
        with (self._home / "log").open("ab") as log:
            self._process = self._cluster.spawn(
                *("postgres", "-D", str(self._cluster.data), f"--port={self._port}"),
                *("--listen_addresses=127.0.0.1", "--unix_socket_directories="),
                farewell=signal.SIGQUIT,
                lock=lock,
                log=log,
            )
        os.close(lock)
        with psycopg.connect(self._server.superuser_url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            connection.execute("SELECT pg_reload_conf()")
            query = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
            while not connection.execute(query).rowcount:
                assert self._process.poll() is None, (self._home / "log").read_text()

    def stop(self) -> None:
        """Stops it; the server goes on waiting for it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(PATIENCE_S)
            self._process = None


@contextlib.asynccontextmanager
async def standing_by(server: Postgres, home: Path) -> AsyncIterator[Standby]:
    """Runs a standby until the end of the block. The event loop goes on while it is made."""
    standby = Standby(server, home)
    await asyncio.to_thread(standby.make)
    await asyncio.to_thread(standby.start)
    try:
        yield standby
    finally:
        standby.stop()
