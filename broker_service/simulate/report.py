"""The outcome of a simulation as text, in tables."""

from collections.abc import Iterator, Sequence

from broker_service.simulate.description import Event, What
from broker_service.simulate.outcome import Outcome, Span
from domain.pools import Policy

Row = Sequence[str]


def lines(outcome: Outcome) -> Iterator[str]:
    """The lines to print."""
    said = outcome.description
    sticky = "sticky" if said.is_sticky else "not sticky"
    yield f"{said.devices:,} devices ask every {said.refresh_s:g} s; {said.policy}, {sticky}"
    yield ""
    yield from _table(list(_distribution(outcome)))
    if len(outcome.spans) > 1:
        yield ""
        yield from _table([EVENT_COLUMNS, *(_event_row(span) for span in outcome.spans[1:])])
    without = outcome.samples[-1].connected.get(0, 0)
    yield ""
    yield f"at the end, {without:,} devices are without a broker"


def _distribution(outcome: Outcome) -> Iterator[Row]:
    """How many devices each broker has as their home, and how many are connected at the end. What
    is expected goes by the weights, so only the policy `weighted` has it.
    """
    is_weighted = outcome.description.policy is Policy.WEIGHTED
    connected = outcome.samples[-1].connected
    yield "broker", "weight", "homes", "expected", "difference", "homes at the end", "connected"
    for broker_id, broker in enumerate(outcome.description.members, 1):
        before = outcome.homes_before.get(broker_id, 0)
        expected = outcome.expected.get(broker_id, 0.0) if is_weighted else 0.0
        yield (
            broker.name,
            f"{broker.weight:,}",
            f"{before:,}",
            f"{expected:,.0f}" if expected else "-",
            f"{(before / expected - 1) * 100:+.2f} %" if expected else "-",
            f"{outcome.homes_after.get(broker_id, 0):,}",
            f"{connected.get(broker_id, 0):,}",
        )


EVENT_COLUMNS = (
    *("at", "event", "homes moved", "ideal", "changed broker", "most without"),
    *("all connected after", "settled after"),
)


def _event_row(span: Span) -> Row:
    assert span.event is not None  # noqa: S101 - only the first span has none
    connected = "not all"
    if span.connected_s is not None:
        connected = f"{span.connected_s - span.began_s:,.0f} s"
    return (
        f"{span.began_s:,.0f} s",
        event_words(span.event),
        f"{span.moved:,}",
        f"{span.ideal:,.0f}",
        f"{span.switched:,}",
        f"{span.most_without:,}",
        connected,
        f"{span.settled_s - span.began_s:,.0f} s",
    )


WORDS = {
    What.DOWN: "goes down",
    What.UP: "comes up",
    What.DEGRADED: "is degraded",
    What.WEIGHT: "weighs",
    What.JOIN: "joins",
    What.LEAVE: "leaves",
}


def event_words(event: Event) -> str:
    """What happens, as a short sentence."""
    weight = "" if event.weight is None else f" {event.weight}"
    return f"{event.member} {WORDS[event.what]}{weight}"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    """Aligned columns: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if _is_words(rows[-1][place]) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _is_words(cell: str) -> bool:
    return cell[:1].isalpha() and cell != "not all"
