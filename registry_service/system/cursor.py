"""A point in the order in which transactions become visible, to ask later what came after it.

Neither a time nor an id is such a point: a transaction may commit after one that began later, and
its rows would then lie before the point without ever having been seen. A snapshot of PostgreSQL is
one: it names the transactions that were open when it was taken.
"""

import re
from dataclasses import dataclass

# The epoch, then a snapshot as PostgreSQL writes it (`pg_snapshot`): the first transaction that was
# open, the first that had not begun, and all between these that were open.
CURSOR = re.compile(
    r"(?P<epoch>[0-9a-fA-F-]{1,80})\.(?P<first>\d{1,18}):(?P<next>\d{1,18}):(?P<open>[\d,]*)",
    re.ASCII,
)
MAX_LENGTH = 64 * 1024
MAX_XID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """A snapshot."""

    # Changes when another history of the database may go on under the same numbers: it was
    # restored, or another server was promoted.
    epoch: str
    # All transactions before this one had ended.
    first: int
    # No transaction from this one on had begun.
    next: int
    # The transactions between the two that had not ended.
    open: tuple[int, ...]

    @classmethod
    def of(cls, epoch: str, snapshot: str) -> "Cursor":
        """`snapshot` is the text of a `pg_snapshot`."""
        first, following, between = snapshot.split(":")
        return cls(
            epoch, int(first), int(following), tuple(int(one) for one in between.split(",") if one)
        )

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """The cursor that a caller sent back; None for any other text."""
        found = CURSOR.fullmatch(text) if len(text) <= MAX_LENGTH else None
        if found is None:
            return None
        between = [int(one) for one in found["open"].split(",") if one]
        if any(one > MAX_XID for one in between):
            return None
        return cls(found["epoch"], int(found["first"]), int(found["next"]), tuple(between))

    def __str__(self) -> str:
        """As callers get it."""
        return f"{self.epoch}.{self.first}:{self.next}:{','.join(map(str, self.open))}"

    def leads_to(self, later: "Cursor", kept_from: int) -> bool:
        """Whether the rows of all transactions between the two can be found, if those of
        transactions before `kept_from` were deleted.
        """
        return self.epoch == later.epoch and kept_from <= self.first and self.next <= later.next
