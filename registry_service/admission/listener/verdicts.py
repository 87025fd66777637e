"""Counts verdicts, because the counter of the Prometheus client takes a microsecond each time."""

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from registry_service.admission.questions import Question


class Verdicts(Collector):
    """Counts on the thread of the event loop, and is read on another thread."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._counts: defaultdict[tuple[str, type[Question] | None, str], int] = defaultdict(int)

    def note(self, dialect: str, kind: type[Question] | None, reason: str) -> None:
        """Counts a verdict on a kind of question; None if the question could not be read."""
        self._counts[dialect, kind, reason] += 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The metric for the Prometheus client."""
        family = CounterMetricFamily(
            "mooring_access_verdicts",
            "Answers to brokers' questions, by the reason of a denial",
            labels=["dialect", "question", "reason"],
        )
        # An atomic copy, because another thread may add counters meanwhile.
        for (dialect, kind, reason), count in list(self._counts.items()):
            family.add_metric([dialect, kind.__name__.lower() if kind else "", reason], count)
        yield family


VERDICTS = Verdicts()
REGISTRY.register(VERDICTS)
