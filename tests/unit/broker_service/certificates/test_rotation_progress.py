"""The progress of a rotation, and when it may be cut over."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker_service.certificates.rotations.progress import (
    CertificateRotation,
    Counts,
    Notified,
    counted,
    notified_of,
)

NOW = datetime(2026, 11, 24, tzinfo=UTC)
OLD, NEW = 1, 2
BUNDLES = st.lists(
    st.tuples(
        st.lists(st.sampled_from([OLD, NEW, 3]), unique=True).map(tuple), st.integers(1, 10**6)
    )
)


def rotation(
    counts: Counts | None, threshold: int = 99, **changes: datetime
) -> CertificateRotation:
    times = {"not_before": NOW - timedelta(1), "not_after": NOW + timedelta(1), **changes}
    return CertificateRotation(
        certificate_id=OLD,
        replacement_id=NEW,
        began_at=NOW,
        threshold_percent=threshold,
        broker_ids=[7],
        kind="ca",
        replacement_pem="",
        counts=counts,
        **times,
    )


def test_the_certificates_of_an_answer_are_old_both_or_new() -> None:
    for ca_ids, expected in (
        ((), Notified.OLD),
        ((OLD,), Notified.OLD),
        ((3,), Notified.OLD),
        ((OLD, NEW), Notified.BOTH),
        ((NEW,), Notified.NEW),
        ((NEW, 3), Notified.NEW),
    ):
        assert notified_of(ca_ids, old_id=OLD, new_id=NEW) is expected


@given(BUNDLES)
def test_every_device_is_counted_once(bundles: list[tuple[tuple[int, ...], int]]) -> None:
    counts = counted(bundles, old_id=OLD, new_id=NEW)
    assert counts.old + counts.both + counts.new == sum(devices for _, devices in bundles)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 100))
def test_the_threshold_decides(old: int, both: int, new: int, threshold: int) -> None:
    counts = Counts(old, both, new)
    is_reached = 100 * (both + new) >= threshold * (old + both + new)
    assert (rotation(counts, threshold).too_early(NOW) == "") is is_reached
    # Rounding never reaches a threshold that needs all devices.
    assert not (threshold == 100 and old and is_reached)


def test_a_replacement_that_is_not_valid_now_is_not_used() -> None:
    everybody = Counts(new=5)
    early = rotation(everybody, not_before=NOW + timedelta(seconds=1))
    late = rotation(everybody, not_after=NOW)
    assert "valid from 2026-11-24" in early.too_early(NOW)
    assert "expired" in late.too_early(NOW)
    assert rotation(None).too_early(NOW) == ""
