"""The progress of a rotation, and whether it may be cut over."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum


class Told(Enum):
    """Which CA certificates were in a device's last answer."""

    OLD = "old"  # not the new one
    BOTH = "both"
    NEW = "new"  # without the old one


def told(ca_ids: Sequence[int], *, old_id: int, new_id: int) -> Told:
    """`ca_ids` are those of the last answer; empty if it is older than their recording."""
    if new_id not in ca_ids:
        return Told.OLD
    return Told.BOTH if old_id in ca_ids else Told.NEW


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of active devices by the certificates of their last answers."""

    old: int = 0
    both: int = 0
    new: int = 0

    @property
    def percent(self) -> float:
        """The share of devices that know the new one, in percent; 100 without devices."""
        devices = self.old + self.both + self.new
        return 100 * (self.both + self.new) / devices if devices else 100.0


def counted(bundles: Iterable[tuple[Sequence[int], int]], *, old_id: int, new_id: int) -> Counts:
    """From the certificates of last answers, with the numbers of devices."""
    counts = dict.fromkeys(Told, 0)
    for ca_ids, devices in bundles:
        counts[told(ca_ids, old_id=old_id, new_id=new_id)] += devices
    return Counts(**{which.value: count for which, count in counts.items()})


@dataclass(frozen=True, slots=True)
class CertificateRotation:
    """A rotation in progress, as of one moment."""

    certificate_id: int
    replacement_id: int
    began_at: datetime
    threshold_percent: int
    # The ids of the brokers that use the certificate, in order.
    broker_ids: Sequence[int]
    # The time in which the replacement is valid.
    not_before: datetime
    not_after: datetime
    # The kind of both certificates: "ca" or "client".
    kind: str
    replacement_pem: str
    # None for a client certificate, because a device gets one at a time.
    counts: Counts | None

    def told(self, ca_ids: Sequence[int]) -> Told:
        """`told` of this rotation."""
        return told(ca_ids, old_id=self.certificate_id, new_id=self.replacement_id)

    def too_early(self, now: datetime) -> str:
        """Why a cutover at `now` would cut devices off; "" if it would not."""
        if now < self.not_before:
            return f"the replacement is valid from {self.not_before:%Y-%m-%d} on"
        if now >= self.not_after:
            return f"the replacement expired on {self.not_after:%Y-%m-%d}"
        if self.counts is not None and self.counts.percent < self.threshold_percent:
            return (
                f"{self.counts.old} devices have not been notified of the replacement yet:"
                f" {self.counts.percent:.1f} % have, and {self.threshold_percent} % must"
            )
        return ""

    @property
    def usage(self) -> dict[str, int]:
        """The counts by their names, as errors carry them."""
        return {} if self.counts is None else asdict(self.counts)
