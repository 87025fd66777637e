"""The table, for the terminal and for Markdown: ours and the yardstick's side by side."""

from collections.abc import Iterable

from bench.measures import Figure

HEADINGS = ("what", "measured", "yardstick", "ratio", "must", "aim", "holds?")


def lines_of(figures: Iterable[Figure]) -> list[str]:
    """The lines of the table, in Markdown that is also readable in a terminal."""
    rows = [HEADINGS, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    rule = tuple("-" * width for width in widths)
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (HEADINGS, rule, *rows[1:])
    ]


def _cells(figure: Figure) -> tuple[str, ...]:
    goal, value = figure.goal, figure.value
    shown = "" if value is None else _number(value, figure.unit)
    if goal is None or value is None:
        verdict = _verdict(figure) if goal else ""
        return (figure.what, figure.measured, figure.yardstick, shown, "", "", verdict)
    must = f"{goal.sign} {_number(goal.must, figure.unit)}"
    aim = f"{goal.sign} {_number(goal.aim, figure.unit)}"
    # An absolute figure is in the column "measured" and has no yardstick.
    ratio = "" if figure.unit or not figure.yardstick else shown
    return (figure.what, figure.measured, figure.yardstick, ratio, must, aim, _verdict(figure))


def _verdict(figure: Figure) -> str:
    if figure.fails:
        return "**no**"
    if figure.goal and figure.value is not None and not figure.goal.is_reached(figure.value):
        return f"yes, {'above' if figure.goal.at_most else 'below'} the aim"
    return "yes"


def _number(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if value >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{text} {unit}".rstrip()
