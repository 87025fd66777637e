"""bench/results.md: the figures of the last whole run, with the machine."""

from collections.abc import Sequence
from pathlib import Path

from bench import table
from bench.machine import Machine
from bench.measures import Figure
from bench.programs import HERE

RESULTS = HERE / "results.md"

PAGE = """\
# How fast it is

Written by `make bench`; not edited by hand. Speed differs between machines and from minute to
minute, so the ratios are what counts: each row and its yardstick were measured in the same minutes
on the same machine. The load came from wrk, h2load and pgbench on the same cores.

Of the rows without a goal, that of two replicas of each service says what a replica costs and not
what it gains: on the cores of one machine there is nothing to gain.

{machine}

{table}

![Throughput and latency against the number of connections](results.svg)
"""


def write(machine: Machine, postgres: str, figures: Sequence[Figure], to: Path = RESULTS) -> None:
    """Replaces the page; `postgres` is the version of the server."""
    page = PAGE.format(
        machine=f"{machine.described(postgres)}.", table="\n".join(table.lines_of(figures))
    )
    to.write_text(page)
