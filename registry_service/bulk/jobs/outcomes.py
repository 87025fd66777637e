"""The outcomes of rows of a job, as they are stored. A refused row has the reason in capitals, as
in errors.
"""

PENDING = "pending"
MOVED = "moved"
# It had that pin already.
UNCHANGED = "unchanged"
UNDONE = "undone"
# Not undone: the pin is another one by now, or the device is gone.
CHANGED_SINCE = "changed_since"
# Not undone: the broker that it was pinned to is gone, or its fleet may not use it any more.
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
    """The number of rows with each outcome, after a chunk whose rows had the outcome `lost`."""
    after = dict(before)
    for outcome, count in gained.items():
        after[outcome] = after.get(outcome, 0) + count
        if lost is not None:
            after[lost] = after.get(lost, 0) - count
    return {outcome: count for outcome, count in sorted(after.items()) if count}
