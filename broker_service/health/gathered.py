"""The results of probes in memory, until they are written."""

from collections import deque
from dataclasses import dataclass, field

from broker_service.health.states import Result, opinion_of
from domain.pools import State

# An opinion needs two results.
RESULTS = 2


@dataclass(slots=True)
class Sum:
    """The results of one broker since they were written last."""

    probes: int = 0
    failures: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    # Of the last failure.
    reason: str = ""

    def add(self, result: Result) -> None:
        """Counts a result. A broker that cannot be probed has not failed."""
        self.probes += 1
        if result.state in (State.DEGRADED, State.DOWN):
            self.failures += 1
            self.reason = result.reason
        if result.latency_ms is not None:
            self.latencies_ms.append(result.latency_ms)


class Gathered:
    """The results of all brokers."""

    def __init__(self) -> None:
        """There are no results at first."""
        self._results: dict[int, deque[Result]] = {}
        self._sums: dict[int, Sum] = {}

    def note(self, broker_id: int, result: Result) -> None:
        """Adds the result of a probe."""
        self._results.setdefault(broker_id, deque(maxlen=RESULTS)).append(result)
        self._sums.setdefault(broker_id, Sum()).add(result)

    def forget(self, broker_id: int) -> None:
        """Forgets what was found about a broker."""
        self._results.pop(broker_id, None)

    def opinion(self, broker_id: int) -> Result | None:
        """What the last results of the broker say."""
        return opinion_of(self._results.get(broker_id, ()))

    def sums_of(self, broker_id: int) -> Sum:
        """The sums of one broker since the last call of `take`."""
        return self._sums.get(broker_id, Sum())

    def take(self) -> dict[int, Sum]:
        """The sums since the last call, by broker."""
        taken, self._sums = self._sums, {}
        return taken
