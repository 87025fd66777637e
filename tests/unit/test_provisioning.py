"""Who is let in: every kind of key against every kind of device."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import MooringError
from registry_service.errors import (
    DeviceDisabled,
    DeviceTaken,
    ProvisioningKeyExpired,
    ProvisioningKeyRevoked,
    ProvisioningKeyUnknown,
    ProvisioningKeyUsedUp,
)
from registry_service.provisioning import Decision, ProvisioningKey, Registered, decide, grant

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY_ID, OTHER_ID = UUID(int=1), UUID(int=2)

KEYS = st.builds(
    ProvisioningKey,
    id=st.just(KEY_ID),
    fleet_id=st.just("demo"),
    is_active=st.booleans(),
    expires_at=st.none() | st.sampled_from([NOW - timedelta(1), NOW, NOW + timedelta(1)]),
    max_devices=st.none() | st.just(10),
    devices_provisioned=st.integers(0, 10),
)
DEVICES = st.builds(
    Registered,
    provisioned_by_key_id=st.sampled_from([KEY_ID, OTHER_ID]),
    fleet_id=st.sampled_from(["demo", "other"]),
    is_active=st.booleans(),
    reprovisioning_allowed=st.booleans(),
)


def outcome(
    key: ProvisioningKey | None, device: Registered | None, *, is_same_api_key: bool
) -> Decision | type[MooringError]:
    try:
        return decide(key, device, is_same_api_key=is_same_api_key, now=NOW)
    except MooringError as error:
        return type(error)


def is_admissible(key: ProvisioningKey) -> bool:
    return (
        key.is_active
        and (key.expires_at is None or key.expires_at > NOW)
        and (key.max_devices is None or key.devices_provisioned < key.max_devices)
    )


@given(KEYS)
def test_a_new_device_needs_a_key_that_is_active_and_current_and_has_a_place(
    key: ProvisioningKey,
) -> None:
    decided = outcome(key, None, is_same_api_key=False)
    assert (decided is Decision.CREATE) == is_admissible(key)


@given(KEYS)
def test_a_device_always_gets_its_identity_again_with_the_key_that_made_it_unless_revoked(
    key: ProvisioningKey,
) -> None:
    decided = outcome(key, Registered(KEY_ID, "demo"), is_same_api_key=True)
    assert decided is (Decision.CONFIRM if key.is_active else ProvisioningKeyRevoked)


@given(KEYS, DEVICES, st.booleans())
def test_another_api_key_is_never_confirmed(
    key: ProvisioningKey, device: Registered, is_same_api_key: bool
) -> None:
    decided = outcome(key, device, is_same_api_key=is_same_api_key)
    assert decided is not Decision.CREATE
    if decided is Decision.CONFIRM:
        assert is_same_api_key
    if decided is Decision.RENEW:
        assert device.reprovisioning_allowed
        assert device.fleet_id == key.fleet_id
        assert not is_same_api_key
    if isinstance(decided, Decision):
        assert device.is_active
        assert device.provisioned_by_key_id == key.id or is_admissible(key)


@pytest.mark.parametrize(
    ("key", "device", "is_same_api_key", "expected"),
    [
        (None, Registered(KEY_ID, "demo"), True, ProvisioningKeyUnknown),
        (ProvisioningKey(KEY_ID, "f", is_active=False), None, False, ProvisioningKeyRevoked),
        (ProvisioningKey(KEY_ID, "f", expires_at=NOW), None, False, ProvisioningKeyExpired),
        (
            ProvisioningKey(KEY_ID, "f", max_devices=1, devices_provisioned=1),
            None,
            False,
            ProvisioningKeyUsedUp,
        ),
        (ProvisioningKey(KEY_ID, "f"), Registered(KEY_ID, "demo"), False, DeviceTaken),
        (ProvisioningKey(KEY_ID, "f"), Registered(KEY_ID, "demo", False), True, DeviceDisabled),
        (ProvisioningKey(KEY_ID, "f"), Registered(OTHER_ID, "demo"), True, Decision.CONFIRM),
    ],
)
def test_each_refusal_has_its_reason(
    key: ProvisioningKey | None,
    device: Registered | None,
    is_same_api_key: bool,
    expected: Decision | type[MooringError],
) -> None:
    assert outcome(key, device, is_same_api_key=is_same_api_key) is expected


@given(
    st.integers(1, 50),
    st.lists(st.integers(0, 30), max_size=20),
    st.lists(st.integers(0, 30), min_size=20, max_size=20),
)
def test_a_limit_is_never_exceeded_and_never_wasted_whatever_the_batches(
    limit: int, batches: list[int], lost: list[int]
) -> None:
    made = 0
    for wanted, lost_races in zip(batches, lost, strict=False):
        key = ProvisioningKey(KEY_ID, "f", max_devices=limit, devices_provisioned=made)
        granted = grant(key, wanted, NOW)
        assert granted == min(wanted, limit - made)
        made += max(0, granted - lost_races)
        assert made <= limit


@given(KEYS, st.integers(1, 5))
def test_nothing_is_granted_by_a_key_that_would_refuse(key: ProvisioningKey, wanted: int) -> None:
    assert (grant(key, wanted, NOW) > 0) == is_admissible(key)
