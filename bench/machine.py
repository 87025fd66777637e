"""The machine on which the figures were measured, without which they mean nothing."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The machine as it was before anything was started."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    load: float
    """The load average of the last minute: figures of a busy machine are worth little."""
    day: date

    @classmethod
    def here(cls) -> "Machine":
        """Returns the machine at hand."""
        return cls(
            cpu=_cpu(),
            # The cores that this process may use, which can be fewer than exist, for example in a
            # container.
            cores=len(os.sched_getaffinity(0)),
            memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
            kernel=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            load=os.getloadavg()[0],
            day=datetime.now(UTC).date(),
        )

    def described(self, postgres: str) -> str:
        """One line; `postgres` is the version of the server."""
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, {self.kernel}, "
            f"Python {self.python}, PostgreSQL {postgres}, load average {self.load:.2f} before "
            f"the start, {self.day}"
        )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        # On ARM there is no such line.
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
