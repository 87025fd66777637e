"""Warnings before a certificate expires, and the metric of the days that are left."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from broker_service.certificates.expiry import WARN_EVERY, WARN_WITHIN, Expiring, ExpiryWatch

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def days_left(certificate: Expiring) -> float | None:
    labels = {"id": str(certificate.id), "name": certificate.name}
    return REGISTRY.get_sample_value("mooring_certificate_days_left", labels)


def test_only_certificates_in_use_are_measured() -> None:
    soon = Expiring(1_000_001, "soon", NOW + timedelta(days=1, hours=12))
    gone = Expiring(1_000_002, "gone", NOW - timedelta(days=2))
    watch = ExpiryWatch()
    watch.check([soon, gone], NOW)
    assert (days_left(soon), days_left(gone)) == (1.5, -2)
    renamed = Expiring(soon.id, "renamed", soon.not_after)
    watch.check([renamed], NOW + 12 * HOUR)
    assert (days_left(soon), days_left(renamed), days_left(gone)) == (None, 1, None)
    watch.check([], NOW)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(0, 60))
def test_each_is_warned_of_daily_from_thirty_days_on(hours: list[int], days: int) -> None:
    certificate = Expiring(1_000_003, "ours", NOW + timedelta(days=days))
    watch, now, warned_at = ExpiryWatch(), NOW, list[datetime]()
    for step in hours:
        now += step * HOUR
        with capture_logs() as lines:
            watch.check([certificate], now)
        is_due = certificate.not_after - now < WARN_WITHIN and (
            not warned_at or now - warned_at[-1] >= WARN_EVERY
        )
        assert [line["certificate"] for line in lines] == [certificate.id] * is_due
        warned_at += [now] * is_due
    watch.check([], now)
