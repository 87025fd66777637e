"""The benchmark's goals, its table and its page."""

from datetime import date
from pathlib import Path

import pytest

from bench import results, table
from bench.errors import CannotMeasure
from bench.machine import Machine
from bench.measures import Figure, Goal, Turns, ms, percentile, zero

RATIO = Figure("speed", "600/s", "pgbench: 200/s", 3.0, goal=Goal(3, 5))


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(2.99, "**no**"), (3.0, "yes, below the aim"), (4.99, "yes, below the aim"), (5.0, "yes")],
)
def test_more_is_better(value: float, verdict: str) -> None:
    figure = Figure("speed", "", "pgbench", value, goal=Goal(3, 5))
    assert cells(figure)[-1] == verdict
    assert figure.fails == (verdict == "**no**")


@pytest.mark.parametrize(
    ("value", "verdict"), [(9.0, "yes"), (25.0, "yes, above the aim"), (25.1, "**no**")]
)
def test_less_is_better(value: float, verdict: str) -> None:
    figure = Figure("storm", "", value=value, unit="s", goal=Goal(25, 10, at_most=True))
    assert cells(figure)[-1] == verdict
    assert figure.fails == (verdict == "**no**")


def test_a_figure_without_a_goal_never_fails() -> None:
    figure = Figure("pgbench", "200/s")
    assert not figure.fails
    assert cells(figure) == ["pgbench", "200/s", "", "", "", "", ""]


def test_a_figure_that_could_not_be_measured_fails() -> None:
    assert Figure("storm: wrk fails", "not measured", goal=Goal(1, 1)).fails


def test_one_error_is_too_many() -> None:
    assert not zero("errors", 0).fails
    assert zero("errors", 1).fails


def test_ours_and_the_yardstick_are_side_by_side() -> None:
    assert cells(RATIO)[:6] == ["speed", "600/s", "pgbench: 200/s", "3", "≥ 3", "≥ 5"]


def test_an_absolute_figure_has_no_ratio() -> None:
    figure = Figure("p99", "217 ms", value=217, unit="ms", goal=Goal(300, 300, at_most=True))
    assert cells(figure)[3:6] == ["", "≤ 300 ms", "≤ 300 ms"]


def test_every_line_of_the_table_is_as_wide() -> None:
    lines = table.lines_of([RATIO, zero("errors", 0), Figure("a longer name than the others", "")])
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) == {"|", "-", " "}


def test_turns_compare_pairs() -> None:
    # The machine was half as fast in the second turn, for both.
    assert Turns([600, 300, 630], [200, 100, 200]).ratio == 3.0


def test_percentiles() -> None:
    assert percentile([5, 1, 4, 2, 3], 0.5) == 3
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7], 0.99) == 7
    with pytest.raises(CannotMeasure):
        percentile([], 0.5)


def test_times_are_readable() -> None:
    assert (ms(0.00143), ms(0.217), ms(3.358)) == ("1.43 ms", "217 ms", "3,358 ms")


def test_the_page_shows_the_machine_and_the_figures(tmp_path: Path) -> None:
    machine = Machine("A CPU", 2, 24.0, "Linux 6", "3.11.7", 0.05, date(2026, 11, 23))
    page = tmp_path / "results.md"
    results.write(machine, "18.6", [RATIO], page)
    text = page.read_text()
    assert "A CPU, 2 cores, 24 GiB, Linux 6, Python 3.11.7, PostgreSQL 18.6, load" in text
    assert "\n".join(table.lines_of([RATIO])) in text
    assert "](results.svg)" in text


def cells(figure: Figure) -> list[str]:
    line = table.lines_of([figure])[-1]
    return [cell.strip() for cell in line.strip("|").split("|")]
