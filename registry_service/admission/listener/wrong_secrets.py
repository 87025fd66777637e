"""Counts requests without a valid secret of a broker, and records them in the audit log, for each
address.
"""

from collections import OrderedDict

from prometheus_client import Counter

from chassis.addresses import host_of
from chassis.refusals import Refusals

ACTION = "broker.authenticate"
REASON = "BROKER_SECRET_INVALID"
# The limit for one address (a /64 of IPv6). A broker with a valid secret is served in spite of
# other requests from its address.
MAX_WRONG = 60
PERIOD_S = 60.0
MAX_ADDRESSES = 10_000

REFUSED = Counter(
    "mooring_access_secrets_refused_total", "Requests without a valid secret of a broker"
)


class WrongSecrets:
    """Times are of the running loop's clock."""

    def __init__(self, refusals: Refusals) -> None:
        """`refusals` writes to the audit log."""
        self._refusals = refusals
        self._counts: OrderedDict[bytes | str, tuple[float, int]] = OrderedDict()

    def note(self, address: str, now: float) -> bool:
        """Counts a request, and returns whether there are too many from its address."""
        REFUSED.inc()
        # The line does not contain the wrong secret, because it may differ from a valid one by one
        # letter.
        self._refusals.note_by("", "", ACTION, "", REASON, address=address)
        host = host_of(address)
        since, count = self._counts.get(host, (now, 0))
        if now - since >= PERIOD_S:
            since, count = now, 0
        self._counts[host] = since, count + 1
        self._counts.move_to_end(host)
        if len(self._counts) > MAX_ADDRESSES:
            self._counts.popitem(last=False)
        return count >= MAX_WRONG
