"""How long the certificates in use are valid: a metric, and warnings before they expire."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from prometheus_client import Gauge

log = structlog.get_logger(__name__)

DAYS_LEFT = Gauge(
    "mooring_certificate_days_left",
    "Until a certificate that is in use expires; below zero when it has",
    ["id", "name"],
)
WARN_WITHIN = timedelta(days=30)
WARN_EVERY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Expiring:
    """A certificate that a broker uses, or the replacement of one."""

    id: int
    name: str
    not_after: datetime


class ExpiryWatch:
    """Measures certificates and logs warnings; a warning is repeated every `WARN_EVERY`."""

    def __init__(self) -> None:
        """Starts without warnings."""
        self._warned_at: dict[int, datetime] = {}
        self._measured: set[tuple[str, str]] = set()

    def check(self, certificates: Iterable[Expiring], now: datetime) -> None:
        """Updates the metric and logs warnings. `certificates` are all that are in use at `now`."""
        found = list(certificates)
        for certificate in due(found, self._warned_at, now):
            self._warned_at[certificate.id] = now
            log.warning(
                "a certificate in use expires soon",
                certificate=certificate.id,
                name=certificate.name,
                not_after=certificate.not_after.isoformat(),
                days_left=(certificate.not_after - now).days,
            )
        measured = {(str(certificate.id), certificate.name) for certificate in found}
        for certificate in found:
            days_left = (certificate.not_after - now) / timedelta(days=1)
            DAYS_LEFT.labels(str(certificate.id), certificate.name).set(days_left)
        for gone in self._measured - measured:
            DAYS_LEFT.remove(*gone)
        self._measured = measured


def due(
    certificates: Iterable[Expiring], warned_at: dict[int, datetime], now: datetime
) -> list[Expiring]:
    """The certificates to warn about now; `warned_at` has the times of the last warnings."""
    return [
        certificate
        for certificate in certificates
        if certificate.not_after - now < WARN_WITHIN
        and (certificate.id not in warned_at or now - warned_at[certificate.id] >= WARN_EVERY)
    ]
