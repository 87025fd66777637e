"""The progress of a rotation, and whether it may be cut over."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum


class Notified(Enum):
    """The CA certificates of which a device was notified, in its last answer."""

    OLD = "old"  # not the new one
    BOTH = "both"
    NEW = "new"  # without the old one


def notified_of(ca_ids: Sequence[int], *, old_id: int, new_id: int) -> Notified:
    """The certificates of which a device was notified. `ca_ids` are those in its last answer; empty
    if the answer is older than the recording of certificates.
    """
    if new_id not in ca_ids:
        return Notified.OLD
    return Notified.BOTH if old_id in ca_ids else Notified.NEW


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of active devices by the certificates of their last answers."""

    old: int = 0
    both: int = 0
    new: int = 0

    @property
    def percent(self) -> float:
        """The share of devices notified of the new certificate, in percent; 100 without devices."""
        devices = self.old + self.both + self.new
        return 100 * (self.both + self.new) / devices if devices else 100.0


def counted(bundles: Iterable[tuple[Sequence[int], int]], *, old_id: int, new_id: int) -> Counts:
    """The counts. `bundles` holds the CA certificates of last answers, and the number of devices
    with each.
    """
    counts = dict.fromkeys(Notified, 0)
    for ca_ids, devices in bundles:
        counts[notified_of(ca_ids, old_id=old_id, new_id=new_id)] += devices
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
    # None for a client certificate: a device gets only one at a time, so there is no overlap.
    counts: Counts | None

    def notified_of(self, ca_ids: Sequence[int]) -> Notified:
        """`notified_of` for this rotation."""
        return notified_of(ca_ids, old_id=self.certificate_id, new_id=self.replacement_id)

    def too_early(self, now: datetime) -> str:
        """Why a cutover at `now` would disconnect devices for good; "" if it would not."""
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
        """The counts by name, for errors."""
        return {} if self.counts is None else asdict(self.counts)
