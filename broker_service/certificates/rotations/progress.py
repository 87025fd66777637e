"""How far a rotation has come, and whether it may be cut over."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum


class Told(Enum):
    """Which CA certificates a device was told with its broker, the last time it asked."""

    OLD = "old"  # not the new one
    BOTH = "both"
    NEW = "new"  # without the old one


def told(ca_ids: Sequence[int], *, old_id: int, new_id: int) -> Told:
    """`ca_ids` are those the device was told; none where it was before they were noted."""
    if new_id not in ca_ids:
        return Told.OLD
    return Told.BOTH if old_id in ca_ids else Told.NEW


@dataclass(frozen=True, slots=True)
class Counts:
    """How many active devices were told what."""

    old: int = 0
    both: int = 0
    new: int = 0

    @property
    def percent(self) -> float:
        """Of the devices, how many know the new one; all, where there is none."""
        devices = self.old + self.both + self.new
        return 100 * (self.both + self.new) / devices if devices else 100.0


def counted(bundles: Iterable[tuple[Sequence[int], int]], *, old_id: int, new_id: int) -> Counts:
    """From what was told, each with how many devices were."""
    counts = dict.fromkeys(Told, 0)
    for ca_ids, devices in bundles:
        counts[told(ca_ids, old_id=old_id, new_id=new_id)] += devices
    return Counts(**{which.value: count for which, count in counts.items()})


@dataclass(frozen=True, slots=True)
class CertificateRotation:
    """A rotation under way, as of one moment."""

    certificate_id: int
    replacement_id: int
    began_at: datetime
    threshold_percent: int
    # Those that use the certificate, in order.
    broker_ids: Sequence[int]
    # When the replacement is valid.
    not_before: datetime
    not_after: datetime
    # Of both certificates: "ca" or "client".
    kind: str
    replacement_pem: str
    # None for a client certificate, of which a device is told one at a time.
    counts: Counts | None

    def told(self, ca_ids: Sequence[int]) -> Told:
        """`told` of this rotation."""
        return told(ca_ids, old_id=self.certificate_id, new_id=self.replacement_id)

    def too_early(self, now: datetime) -> str:
        """Why devices would be cut off by a cutover at `now`; "" where none would."""
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
