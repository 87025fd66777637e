"""The outcome of a simulation as an SVG: the devices connected to each broker over time."""

from collections.abc import Iterator
from html import escape

from broker_service.simulate.outcome import Outcome
from broker_service.simulate.report import event_words

WIDTH, HEIGHT = 900, 360
LEFT, TOP, BOTTOM = 70, 24, 40
LEGEND = 150
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - LEGEND, HEIGHT - TOP - BOTTOM
# A legend with more lines would not fit.
NAMED = 16
GRID_LINES = 4
# Colours that also people with a colour deficiency can tell apart (Okabe and Ito), then lighter.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999"),
    *("#5aa9d6", "#f3c766", "#66c5ab", "#e0afca", "#a3d5f1", "#e69a66", "#f6ef8e", "#c2c2c2"),
)
STYLE = (
    "text{font:11px sans-serif;fill:#333}.line{stroke:#ddd;stroke-width:1}"
    ".event{stroke:#222;stroke-width:1;stroke-dasharray:3 3}"
)


def drawn(outcome: Outcome) -> str:
    """The picture, with a white ground. What is free at the top has no broker."""
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            "<title>Devices connected to each broker over time</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            *_grid(outcome),
            *_areas(outcome),
            *_events(outcome),
            *_legend(outcome),
            "</svg>\n",
        )
    )


def _x(outcome: Outcome, at_s: float) -> float:
    return LEFT + PLOT_WIDTH * at_s / outcome.description.duration_s


def _y(outcome: Outcome, devices: float) -> float:
    return TOP + PLOT_HEIGHT * (1 - devices / outcome.description.devices)


def _grid(outcome: Outcome) -> Iterator[str]:
    """Lines for numbers of devices, and seconds below."""
    right, lower = LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT
    for line in range(GRID_LINES + 1):
        devices = outcome.description.devices * line / GRID_LINES
        y = _y(outcome, devices)
        yield f'<line class="line" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{devices:,.0f}</text>'
        at_s = outcome.description.duration_s * line / GRID_LINES
        x = _x(outcome, at_s)
        yield f'<text x="{x:.1f}" y="{lower + 16}" text-anchor="middle">{at_s:,.0f} s</text>'


def _areas(outcome: Outcome) -> Iterator[str]:
    """One area for each broker, upon one another."""
    lower = [0] * len(outcome.samples)
    for broker_id in range(1, len(outcome.description.members) + 1):
        upper = [
            below + sample.connected.get(broker_id, 0)
            for below, sample in zip(lower, outcome.samples, strict=True)
        ]
        if upper != lower:
            times = [sample.at_s for sample in outcome.samples]
            there = list(zip(times, upper, strict=True))
            back = list(zip(times, lower, strict=True))[::-1]
            points = " ".join(
                f"{_x(outcome, at_s):.1f},{_y(outcome, devices):.1f}"
                for at_s, devices in (*there, *back)
            )
            yield f'<polygon fill="{_colour(broker_id)}" points="{points}"/>'
        lower = upper


def _events(outcome: Outcome) -> Iterator[str]:
    for number, span in enumerate(outcome.spans[1:], 1):
        if span.event is not None:
            x = _x(outcome, span.began_s)
            yield (
                f'<line class="event" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}"'
                f' y2="{TOP + PLOT_HEIGHT}"><title>{escape(event_words(span.event))}</title></line>'
            )
            yield f'<text x="{x:.1f}" y="{TOP - 8}" text-anchor="middle">{number}</text>'


def _legend(outcome: Outcome) -> Iterator[str]:
    """The first brokers, from top to bottom as they are drawn, and the events by number."""
    x, y = LEFT + PLOT_WIDTH + 14, TOP + 8
    named = list(enumerate(outcome.description.members, 1))[:NAMED]
    for broker_id, broker in reversed(named):
        yield f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{_colour(broker_id)}"/>'
        yield f'<text x="{x + 16}" y="{y}">{escape(broker.name)}</text>'
        y += 18
    words = (
        f"{number}: {event_words(span.event)}"
        for number, span in enumerate(outcome.spans[1:], 1)
        if span.event is not None
    )
    yield f'<text x="{LEFT}" y="{HEIGHT - 6}">{escape("; ".join(words))}</text>'


def _colour(broker_id: int) -> str:
    return COLOURS[(broker_id - 1) % len(COLOURS)]
