"""Services and brokers as processes: starting, waiting, restarting, stopping."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from local import logs
from local.errors import CannotRun
from local.interrupts import ChildExits
from local.postgres import Postgres
from local.probes import demand_free
from local.revival import Revival
from local.tether import tethered

READY_S = 30.0
POLL_S = 0.05
STOP_S = 15.0
# The number of its last lines to show when a program ends by itself.
LAST_LINES = 3


class Program:
    """A program that ends with this process, and is started again if it ends by itself."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        lock: int,
        ports: Mapping[str, int] | None = None,
    ) -> None:
        """The program inherits the descriptor `lock`, so the lock is held as long as it lives.

        `ports` are the ports that it listens on, by the name of their setting.
        """
        self.name = name
        self._ports = ports or {}
        self._command = command
        self._environment = environment
        self._log = log
        self._lock = lock
        self._process: subprocess.Popen[bytes] | None = None
        self._revival = Revival()
        logs.begin(log).close()

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise CannotRun(f"{self.name} was not started")
        return self._process.pid

    def prepare(self) -> Sequence[str]:
        """Prepares a start; returns arguments of setpriv for it."""
        return ()

    def start(self) -> None:
        """Starts it, and does not wait until it is ready.

        Raises `CannotRun` if another process has one of its ports.
        """
        for setting, port in self._ports.items():
            demand_free(f"{self.name}: {setting}", port)
        privileges = self.prepare()
        with logs.resume(self._log) as log:
            self._process = subprocess.Popen(
                tethered(self._command, signal.SIGTERM, privileges),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._lock],
                process_group=0,
            )
        self._revival.started()

    def stop(self) -> None:
        """Asks it to end, and kills it after a while."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def demand_alive(self) -> None:
        """Raises `CannotRun` with its last lines if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise CannotRun(self._epitaph(self._process.returncode))

    def revive(self) -> float | None:
        """Starts it again if it has ended, after a pause that grows while it keeps ending.

        Returns when that is due, by the monotonic clock, or None while it runs.
        """
        if self._process is None or self._process.poll() is None:
            return None
        status = self._process.returncode
        lines = LAST_LINES if status >= 0 else 0
        return self._revival.attempt(self.start, lambda: self._epitaph(status, lines))

    def _epitaph(self, status: int, lines: int = 10) -> str:
        how = f"status {status}" if status >= 0 else signal.Signals(-status).name
        last = logs.last_lines(self._log, lines)
        return f"{self.name} ended with {how} (log: {self._log}).\n{last}".rstrip()


class Service(Program):
    """One service, run as a module by this interpreter."""

    def __init__(
        self,
        module: str,
        environment: Mapping[str, str],
        log: Path,
        lock: int,
        ports: Mapping[str, int] | None = None,
    ) -> None:
        """`lock` and `ports` are as in `Program`."""
        super().__init__(module, [sys.executable, "-m", module], environment, log, lock, ports)
        self.module = module


Child = Program | Postgres


@contextmanager
def blaming(children: Iterable[Child]) -> Iterator[None]:
    """Replaces a `CannotRun` from the block by that of a child that has ended, if there is one."""
    try:
        yield
    except CannotRun:
        for child in children:
            child.demand_alive()
        raise


def wait_until_ready(
    children: Iterable[Child], checks: Mapping[str, Callable[[], bool]], exits: ChildExits
) -> None:
    """Returns when every check is true. Raises `CannotRun` if a child ends, or after a timeout."""
    deadline = time.monotonic() + READY_S
    waiting = dict(checks)
    while True:
        for child in children:
            child.demand_alive()
        waiting = {name: check for name, check in waiting.items() if not check()}
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise CannotRun(f"not ready after {READY_S:.0f} s: {', '.join(waiting)}")
        exits.wait(POLL_S)


def keep_running(children: Iterable[Child], exits: ChildExits) -> NoReturn:
    """Restarts processes that end; the others go on.

    Never returns: a signal ends it with `KeyboardInterrupt`.
    """
    while True:
        due = [at for child in children if (at := child.revive()) is not None]
        exits.wait(max(0.0, min(due) - time.monotonic()) if due else None)
