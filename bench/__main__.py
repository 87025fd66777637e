"""`python -m bench [ROW,ROW…]`: all rows, or those that are named.

Exit status 0 when everything is as it must be, 1 when something is not or could not be measured.
bench/results.md and bench/results.svg are replaced by a run of all rows only: figures of different
hours do not belong in one table.
"""

import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psycopg

from bench import chart, programs, results, table
from bench.errors import CannotMeasure
from bench.machine import Machine
from bench.measures import Figure, Findings, Goal
from bench.rows import (
    access,
    again,
    beside_first_connects,
    brokers,
    bulk,
    connections,
    first_connects,
    idle,
    keys,
    management,
    many,
    pgbench,
    processor_time,
    replicas,
    resolve,
    resolve_many,
    responsive,
    rotation,
    size,
    storm,
)
from bench.stage import Stage, opened
from local import interrupts
from local.config import LocalConfig
from local.errors import CannotRun
from local.supervisor import forget_foreign_settings
from local.tether import end_with_parent

Row = Callable[[Stage], Findings]
# By the name that ROW takes, in the order in which they are run.
ROWS: Mapping[str, Row] = {
    "pgbench": pgbench.measure,
    "connections": connections.measure,
    "processor-time": processor_time.measure,
    "idle": idle.measure,
    "storm": storm.measure,
    "responsive": responsive.measure,
    "size": size.measure,
    "many": many.measure,
    "brokers": brokers.measure,
    "keys": keys.measure,
    "replicas": replicas.measure,
    "again": again.measure,
    "resolve": resolve.measure,
    "resolve-many": resolve_many.measure,
    "management": management.measure,
    "bulk": bulk.measure,
    "rotation": rotation.measure,
    "access": access.measure,
    "first-connects": first_connects.measure,
    "beside-first-connects": beside_first_connects.measure,
}
# What was not measured has no value, so it misses any goal.
UNMEASURED = Goal(0, 0)


def main(wanted: Sequence[str]) -> int:
    """The exit status."""
    if unknown := set(wanted) - set(ROWS):
        tell(f"no row is called {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
        return 1
    chosen = {name: row for name, row in ROWS.items() if name in wanted or not wanted}
    machine = Machine.here()
    try:
        with tempfile.TemporaryDirectory(prefix="mooring-bench-") as folder:
            prepare_ourselves(folder)
            with opened(Path(folder)) as stage:
                postgres = stage.postgres_version()
                found = [measured(name, row, stage) for name, row in chosen.items()]
    except CannotRun as reason:
        tell(str(reason))
        return 1
    except KeyboardInterrupt:
        tell("stopped; nothing was written")
        return 1
    figures = [figure for findings in found for figure in findings.figures]
    print(machine.described(postgres), *table.lines_of(figures), sep="\n")
    if not wanted:
        results.write(machine, postgres, figures)
        chart.draw([curve for findings in found for curve in findings.curves])
        tell(f"written: {results.RESULTS} and {chart.CHART}")
    return 1 if any(figure.fails for figure in figures) else 0


def prepare_ourselves(folder: str) -> None:
    """Finds every program before anything takes time. Raises `CannotRun`."""
    for name in ("wrk", "h2load", "pgbench"):
        programs.program(name)
    forget_foreign_settings(LocalConfig(mooring_home=Path(folder), mooring_database_url=None))
    # Thousands of connections have two ends here; what we start inherits it.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def measured(name: str, row: Row, stage: Stage) -> Findings:
    """What `row` found; a row that cannot be measured is one failing figure."""
    tell(f"{name} …")
    try:
        return row(stage)
    except (CannotMeasure, CannotRun, psycopg.Error, OSError) as reason:
        first = next(iter(str(reason).splitlines()), type(reason).__name__)
        tell(f"{name}: {reason}")
        return Findings((Figure(f"{name}: {first}", "not measured", goal=UNMEASURED),))


def tell(news: str) -> None:
    """For the person at the terminal."""
    print(f"bench: {news}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    interrupts.obey()
    end_with_parent(signal.SIGTERM)
    sys.exit(main([name for word in sys.argv[1:] for name in word.split(",") if name]))
