"""`python -m bench [ROW,ROW…]` measures all rows, or only the named ones.

The exit status is 0 if every goal holds, and 1 if one does not or could not be measured. Only a run
of all rows replaces bench/results.md and bench/results.svg, because figures of different hours do
not belong in one table.
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
    beside_consoles,
    beside_first_connects,
    brokers,
    bulk,
    connections,
    console,
    first_connects,
    idle,
    keys,
    management,
    many,
    pgbench,
    pools,
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
# The rows in the order in which they run, by the name in ROW.
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
    "pools": pools.measure,
    "management": management.measure,
    "console": console.measure,
    "beside-consoles": beside_consoles.measure,
    "bulk": bulk.measure,
    "rotation": rotation.measure,
    "access": access.measure,
    "first-connects": first_connects.measure,
    "beside-first-connects": beside_first_connects.measure,
}
# A figure that was not measured has no value, so it misses any goal.
UNMEASURED = Goal(0, 0)


def main(wanted: Sequence[str]) -> int:
    """Returns the exit status."""
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
    """Finds all programs before anything that takes time. Raises `CannotRun`."""
    for name in ("wrk", "h2load", "pgbench"):
        programs.program(name)
    forget_foreign_settings(LocalConfig(mooring_home=Path(folder), mooring_database_url=None))
    # Both ends of thousands of connections are on this machine; child processes inherit the limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def measured(name: str, row: Row, stage: Stage) -> Findings:
    """The findings of `row`; one failing figure for a row that cannot be measured."""
    tell(f"{name} …")
    try:
        return row(stage)
    except (CannotMeasure, CannotRun, psycopg.Error, OSError) as reason:
        first = next(iter(str(reason).splitlines()), type(reason).__name__)
        tell(f"{name}: {reason}")
        return Findings((Figure(f"{name}: {first}", "not measured", goal=UNMEASURED),))


def tell(news: str) -> None:
    """Prints to the terminal."""
    print(f"bench: {news}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    interrupts.obey()
    end_with_parent(signal.SIGTERM)
    sys.exit(main([name for word in sys.argv[1:] for name in word.split(",") if name]))
