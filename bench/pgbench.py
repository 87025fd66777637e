"""Runs pgbench, which does the least that PostgreSQL alone must do."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.errors import CannotMeasure
from bench.measures import percentile
from bench.programs import output_of
from bench.stage import Database

TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
# Keeps its own processor time for the load, and not for switching threads.
THREADS = 2


@dataclass(frozen=True)
class PgbenchReport:
    """The figures of one run."""

    per_s: float
    p50_s: float
    p99_s: float


def run(
    database: Database, script: str, *, clients: int, seconds: float, **variables: str
) -> PgbenchReport:
    """Runs sql/`script` as the database's owner with prepared statements."""
    with tempfile.TemporaryDirectory() as folder:
        output = output_of(
            "pgbench",
            *("--no-vacuum", "--protocol=prepared", f"--file=bench/sql/{script}"),
            *(f"--client={clients}", f"--jobs={min(THREADS, clients)}", f"--time={seconds:.0f}"),
            *("--log", f"--log-prefix={folder}/log"),
            *(f"--define={name}={value}" for name, value in variables.items()),
            database.owner_url,
            within_s=seconds,
        )
        latencies = [
            latency_s(line)
            for log in Path(folder).iterdir()
            for line in log.read_text().splitlines()
        ]
    return PgbenchReport(rate_in(output), percentile(latencies, 0.5), percentile(latencies, 0.99))


def rate_in(output: str) -> float:
    """Transactions per second. Raises `CannotMeasure` where some failed, or there is no rate."""
    found = TPS.search(output)
    if found is None or "aborted" in output:
        raise CannotMeasure(f"pgbench reports no rate: {output.strip().splitlines()[-1:]}")
    return float(found.group(1))


def latency_s(line: str) -> float:
    """The latency in a line of its log: client, transaction, microseconds, and more."""
    return int(line.split()[2]) / 1e6
