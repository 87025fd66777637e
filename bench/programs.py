"""The programs that make the load: finds or unpacks them, runs them, and leaves none running."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.errors import CannotMeasure
from local import interrupts
from local.cluster import wheel_bin
from local.tether import tethered
from tests import debian_packages

HERE = Path(__file__).parent
POLL_S = 0.02
# How long a program may take beyond the time that it was given.
PATIENCE_S = 30.0


def program(name: str) -> tuple[Path, dict[str, str]]:
    """The program `name`, and the environment in which to start it. Raises `CannotRun`."""
    if name == "pgbench":
        # The version must be that of the server.
        return wheel_bin() / name, dict(os.environ)
    if name == "python":
        return Path(sys.executable), dict(os.environ)
    return debian_packages.program(name)


class Run:
    """One run of a program, which ends with the block at the latest.

    Enter it in the main thread: a program ends with the thread that started it.
    """

    def __init__(self, name: str, *arguments: str, **environment: str) -> None:
        """`environment` is added to ours."""
        path, inherited = program(name)
        self.name = name
        self._command = [str(path), *arguments]
        self._environment = inherited | environment
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            tethered(self._command, signal.SIGTERM),
            env=self._environment,
            cwd=HERE.parent,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._said.close()

    def wait_for(self, file: Path) -> None:
        """Returns when the program has made `file`. Raises `CannotMeasure` if it ends or takes too
        long.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not file.exists():
            if interrupts.wait(self._started, POLL_S) or time.monotonic() > deadline:
                raise CannotMeasure(f"{self.name} does not start: {self._last_line()}")

    def demand_running_for(self, seconds: float) -> None:
        """Returns after `seconds`. Raises `CannotMeasure` if the program has ended by then."""
        if interrupts.wait(self._started, seconds):
            raise CannotMeasure(f"{self.name} ends too early: {self._last_line()}")

    def output(self, within_s: float) -> str:
        """Waits for its end and returns its output.

        Raises `CannotMeasure` if it fails or takes much longer than `within_s`.
        """
        has_ended = interrupts.wait(self._started, within_s + PATIENCE_S)
        if not has_ended:
            raise CannotMeasure(f"{self.name} does not end: {self._last_line()}")
        if self._started.returncode != 0:
            raise CannotMeasure(f"{self.name} fails: {self._last_line()}")
        return self._all_said()

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise CannotMeasure(f"{self.name} was not started")
        return self._process

    def _all_said(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def _last_line(self) -> str:
        lines = self._all_said().strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def output_of(name: str, *arguments: str, within_s: float, **environment: str) -> str:
    """The output of one run of a program. Raises `CannotMeasure`."""
    with Run(name, *arguments, **environment) as run:
        return run.output(within_s)
