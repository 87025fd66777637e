"""Counts registrations and refusals in memory until they are written."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import Counter as Metric

from registry_service.activity.series.latency import BUCKETS, bucket_of
from registry_service.activity.series.ranges import MINUTE_S

# The bucket of all fleets together.
ALL_FLEETS = ""
# The limits in memory: minutes of all fleets together, minutes of single fleets, and reasons in one
# minute. The first is half a day without a database.
MAX_MINUTES = 720
MAX_OF_FLEETS = 10_000
MAX_REASONS = 64
REASON = re.compile(r"[A-Z][A-Z0-9_]{0,59}")
# Stands for reasons beyond the limit, and for texts that are no reasons.
OTHER = "OTHER"

LOST = Metric(
    "mooring_series_lost_total",
    "Registrations and refusals that are missing in the series, because too much waited in memory",
)

Key = tuple[int, str]  # the minute (Unix time / 60) and the fleet


class Minute:
    """The counts of one minute, of a fleet or of all."""

    __slots__ = ("known_devices", "latency", "new_devices", "reasons")

    def __init__(self) -> None:
        """Starts at zero."""
        self.new_devices = 0
        self.known_devices = 0
        self.latency = [0] * BUCKETS
        self.reasons: Counter[str] = Counter()

    def refuse(self, reason: str, count: int) -> None:
        """Counts refusals."""
        if not REASON.fullmatch(reason):
            reason = OTHER
        if reason not in self.reasons and len(self.reasons) >= MAX_REASONS:
            reason = OTHER
        self.reasons[reason] += count

    def join(self, other: "Minute") -> None:
        """Adds the counts of `other`."""
        self.new_devices += other.new_devices
        self.known_devices += other.known_devices
        for index, count in enumerate(other.latency):
            self.latency[index] += count
        for reason, count in other.reasons.items():
            self.refuse(reason, count)

    @property
    def total(self) -> int:
        """The number of registrations and refusals."""
        return self.new_devices + self.known_devices + self.reasons.total()


class Counts:
    """The minutes that are not written yet. Times are Unix times in seconds."""

    def __init__(self, *, minutes: int = MAX_MINUTES, of_fleets: int = MAX_OF_FLEETS) -> None:
        """Holds `minutes` of all fleets together, and `of_fleets` minutes of single fleets."""
        self._max_minutes = minutes
        self._max_of_fleets = of_fleets
        self._held: dict[Key, Minute] = {}
        self._minutes = 0

    def __len__(self) -> int:
        """The number of minutes in memory, of each fleet and of all together."""
        return len(self._held)

    def registered(
        self, devices: Mapping[tuple[str, bool], int], took_s: float, now: float
    ) -> None:
        """Counts registrations, by the fleet and whether the device is new; each took `took_s`."""
        minute, bucket = int(now // MINUTE_S), bucket_of(took_s)
        for (fleet_id, is_new), count in devices.items():
            for counted in self._minutes_of(minute, fleet_id, count):
                counted.latency[bucket] += count
                if is_new:
                    counted.new_devices += count
                else:
                    counted.known_devices += count

    def refused(self, reason: str, fleet_id: str, now: float, count: int = 1) -> None:
        """Counts refusals; `fleet_id` is empty if the fleet is not known."""
        for counted in self._minutes_of(int(now // MINUTE_S), fleet_id, count):
            counted.refuse(reason, count)

    def take(self) -> dict[Key, Minute]:
        """Returns everything. The caller must write it, or `put_back` it."""
        taken, self._held, self._minutes = self._held, {}, 0
        return taken

    def put_back(self, taken: Mapping[Key, Minute]) -> None:
        """Puts back what could not be written."""
        for (minute, fleet_id), counts in taken.items():
            held = self._minute(minute, fleet_id)
            if held is not None:
                held.join(counts)
            elif fleet_id == ALL_FLEETS:
                LOST.inc(counts.total)

    def _minutes_of(self, minute: int, fleet_id: str, count: int) -> Iterable[Minute]:
        """The buckets to count in: that of all fleets, and that of the fleet."""
        total = self._minute(minute, ALL_FLEETS)
        own = self._minute(minute, fleet_id) if fleet_id else None
        if total is None or (fleet_id and own is None):
            LOST.inc(count)
        return [found for found in (total, own) if found is not None]

    def _minute(self, minute: int, fleet_id: str) -> Minute | None:
        """The bucket; None if there is no room for another one."""
        found = self._held.get((minute, fleet_id))
        if found is not None:
            return found
        if fleet_id == ALL_FLEETS:
            if self._minutes >= self._max_minutes:
                return None
            self._minutes += 1
        elif len(self._held) - self._minutes >= self._max_of_fleets:
            return None
        found = self._held[minute, fleet_id] = Minute()
        return found
