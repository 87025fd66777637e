"""The outcomes of rows of a job, as they are stored. A refused row has the reason in capitals, as
in errors.
"""

PENDING = "pending"
MOVED = "moved"
# The device had that pin already.
UNCHANGED = "unchanged"
UNDONE = "undone"
# Not undone: the device has another pin by now, or was deleted.
CHANGED_SINCE = "changed_since"
# Not undone: the previous broker was deleted, or the fleet may not use it any more.
NOT_RESTORED = "not_restored"

INVALID_ROW = "INVALID_ROW"
UUID_REPEATED = "UUID_REPEATED"
DEVICE_NOT_FOUND = "DEVICE_NOT_FOUND"
BROKER_UNKNOWN = "BROKER_UNKNOWN"
BROKER_INACTIVE = "BROKER_INACTIVE"
BROKER_NOT_ALLOWED = "BROKER_NOT_ALLOWED"

REFUSALS = (
    INVALID_ROW,
    UUID_REPEATED,
    DEVICE_NOT_FOUND,
    BROKER_UNKNOWN,
    BROKER_INACTIVE,
    BROKER_NOT_ALLOWED,
)
ALL = (PENDING, MOVED, UNCHANGED, UNDONE, CHANGED_SINCE, NOT_RESTORED, *REFUSALS)


def tallied(before: dict[str, int], gained: dict[str, int], lost: str | None) -> dict[str, int]:
    """How many rows have each outcome, after a chunk with the outcomes `gained`. Its rows had the
    outcome `lost` before, or are new if that is None.
    """
    after = dict(before)
    for outcome, count in gained.items():
        after[outcome] = after.get(outcome, 0) + count
        if lost is not None:
            after[lost] = after.get(lost, 0) - count
    return {outcome: count for outcome, count in sorted(after.items()) if count}
