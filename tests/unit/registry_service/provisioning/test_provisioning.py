"""Which registrations are allowed: every kind of key with every kind of device."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import MooringError
from registry_service.errors import (
    DeviceDisabled,
    DeviceNotExpected,
    DeviceTaken,
    DeviceTypeNotAllowed,
    FleetDisabled,
    NetworkNotAllowed,
    ProvisioningKeyExpired,
    ProvisioningKeyRevoked,
    ProvisioningKeyUnknown,
    ProvisioningKeyUsedUp,
    UuidNotAllowed,
    UuidReserved,
)
from registry_service.provisioning.decision import (
    Decision,
    ProvisioningKey,
    Registered,
    Restrictions,
    decide,
    grant,
    is_within,
)

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


UUIDS = ("sensor-1", "sensor-2", "router-1")
TYPES = ("sensor", "router")
ADDRESSES = ("192.0.2.1", "198.51.100.1", "2001:db8::1", "::ffff:192.0.2.1", "", "no address")
NETWORKS = ("192.0.2.0/24", "198.51.100.1/32", "2001:db8::/32", "0.0.0.0/0", "::/0")
RESTRICTIONS = st.builds(
    Restrictions,
    device_types=st.none() | st.frozensets(st.sampled_from(TYPES), min_size=1),
    source_networks=st.none() | st.lists(st.sampled_from(NETWORKS), min_size=1).map(tuple),
    uuids=st.none() | st.frozensets(st.sampled_from(UUIDS), min_size=1),
    uuid_prefix=st.none() | st.sampled_from(["sensor-", "router-"]),
    only_expected=st.booleans(),
)
SHOWN = st.fixed_dictionaries(
    {
        "uuid": st.sampled_from(UUIDS),
        "device_type": st.sampled_from(TYPES),
        "source_address": st.sampled_from(ADDRESSES),
        "expected_in": st.none() | st.sampled_from(["demo", "other"]),
    }
)


def outcome(
    key: ProvisioningKey | None, device: Registered | None, *, is_same_api_key: bool, **shown: Any
) -> Decision | type[MooringError]:
    values = {"uuid": "u", "device_type": "t", "source_address": "", "expected_in": None, **shown}
    try:
        return decide(key, device, is_same_api_key=is_same_api_key, now=NOW, **values)
    except MooringError as error:
        return type(error)


def is_admissible(key: ProvisioningKey) -> bool:
    return (
        key.is_active
        and (key.expires_at is None or key.expires_at > NOW)
        and (key.max_devices is None or key.devices_provisioned < key.max_devices)
    )


@given(KEYS)
def test_a_new_device_needs_an_active_unexpired_key_with_a_free_place(
    key: ProvisioningKey,
) -> None:
    decided = outcome(key, None, is_same_api_key=False)
    assert (decided is Decision.CREATE) == is_admissible(key)


@given(KEYS)
def test_a_device_can_always_register_again_with_its_key_unless_it_was_revoked(
    key: ProvisioningKey,
) -> None:
    decided = outcome(key, Registered(KEY_ID, "demo"), is_same_api_key=True)
    assert decided is (Decision.CONFIRM if key.is_active else ProvisioningKeyRevoked)


@given(KEYS, DEVICES, st.booleans())
def test_a_wrong_api_key_is_never_confirmed(
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


@given(KEYS, RESTRICTIONS, st.none() | DEVICES, st.booleans(), SHOWN)
def test_a_disabled_fleet_refuses_all_with_one_reason(
    key: ProvisioningKey,
    restrictions: Restrictions,
    device: Registered | None,
    is_same_api_key: bool,
    shown: dict[str, Any],
) -> None:
    key = replace(key, restrictions=restrictions)
    is_same_api_key = is_same_api_key and device is not None
    before = outcome(key, device, is_same_api_key=is_same_api_key, **shown)
    if device is not None and device.fleet_id == key.fleet_id:
        device = replace(device, is_active=False)
        expected: type[MooringError] = DeviceDisabled
    else:
        expected = FleetDisabled
    key = replace(key, fleet_is_active=False)
    after = outcome(key, device, is_same_api_key=is_same_api_key, **shown)
    if isinstance(before, Decision):
        assert after is expected
    elif before is DeviceDisabled:
        assert after in (DeviceDisabled, FleetDisabled)
    else:
        assert after is before


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
def test_a_limit_is_neither_exceeded_nor_wasted_in_any_batches(
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
def test_no_place_is_granted_by_a_key_that_would_refuse(key: ProvisioningKey, wanted: int) -> None:
    assert (grant(key, wanted, NOW) > 0) == is_admissible(key)


@given(KEYS, RESTRICTIONS, st.none() | DEVICES, st.booleans(), SHOWN)
def test_a_restriction_only_turns_decisions_into_refusals(
    key: ProvisioningKey,
    restrictions: Restrictions,
    device: Registered | None,
    is_same_api_key: bool,
    shown: dict[str, Any],
) -> None:
    free = outcome(key, device, is_same_api_key=is_same_api_key, **shown)
    restricted = outcome(
        replace(key, restrictions=restrictions), device, is_same_api_key=is_same_api_key, **shown
    )
    assert restricted == free or restricted in (
        NetworkNotAllowed,
        UuidNotAllowed,
        DeviceTypeNotAllowed,
        DeviceNotExpected,
    )


@given(KEYS, st.none() | DEVICES, st.booleans(), SHOWN)
def test_without_restrictions_only_a_reserved_prefix_changes_a_decision(
    key: ProvisioningKey, device: Registered | None, is_same_api_key: bool, shown: dict[str, Any]
) -> None:
    plain = outcome(key, device, is_same_api_key=is_same_api_key)
    decided = outcome(key, device, is_same_api_key=is_same_api_key, **shown)
    if plain is Decision.CREATE and shown["expected_in"] == "other":
        assert decided is UuidReserved
    else:
        assert decided == plain
    nothing = replace(key, restrictions=Restrictions())
    assert outcome(nothing, device, is_same_api_key=is_same_api_key, **shown) == decided


@given(KEYS, RESTRICTIONS, st.none() | DEVICES, st.booleans(), SHOWN)
def test_every_new_or_renewed_device_meets_every_restriction(
    key: ProvisioningKey,
    restrictions: Restrictions,
    device: Registered | None,
    is_same_api_key: bool,
    shown: dict[str, Any],
) -> None:
    restricted = replace(key, restrictions=restrictions)
    decided = outcome(restricted, device, is_same_api_key=is_same_api_key, **shown)
    networks = restrictions.source_networks
    if isinstance(decided, Decision):
        assert networks is None or is_within(shown["source_address"], networks)
    if decided in (Decision.CREATE, Decision.RENEW):
        assert restrictions.uuids is None or shown["uuid"] in restrictions.uuids
        assert shown["uuid"].startswith(restrictions.uuid_prefix or "")
        types = restrictions.device_types
        assert types is None or shown["device_type"] in types
        assert not restrictions.only_expected or shown["expected_in"] == key.fleet_id
    if decided is Decision.CREATE:
        assert shown["expected_in"] in (None, key.fleet_id)


@given(KEYS, RESTRICTIONS, DEVICES, DEVICES, SHOWN)
def test_a_restricted_key_does_not_reveal_which_uuids_exist(
    key: ProvisioningKey,
    restrictions: Restrictions,
    one: Registered,
    other: Registered,
    shown: dict[str, Any],
) -> None:
    """Without its API key, an existing device gets the same answer as a missing one."""
    theirs = UUID(int=3)
    restricted = replace(key, restrictions=restrictions)
    answers = {
        outcome(restricted, device, is_same_api_key=False, **shown)
        for device in (
            None,
            replace(one, provisioned_by_key_id=theirs),
            replace(other, provisioned_by_key_id=theirs),
        )
    }
    hidden = {NetworkNotAllowed, UuidNotAllowed, DeviceTypeNotAllowed, DeviceNotExpected}
    assert len(answers) == 1 or not answers & hidden


@given(
    st.ip_addresses(),
    st.lists(
        st.one_of(
            st.tuples(st.ip_addresses(v=4), st.integers(0, 32)),
            st.tuples(st.ip_addresses(v=6), st.integers(0, 128)),
        ).map(lambda pair: str(ip_network(f"{pair[0]}/{pair[1]}", strict=False))),
        max_size=4,
    ).map(tuple),
)
def test_an_address_is_within_a_network_that_contains_it(
    address: Any, networks: tuple[str, ...]
) -> None:
    if getattr(address, "ipv4_mapped", None) is None:
        expected = any(address in ip_network(text) for text in networks)
        assert is_within(str(address), networks) == expected
    if address.version == 4:
        mapped = str(ip_address((0xFFFF << 32) + int(address)))
        assert is_within(mapped, networks) == is_within(str(address), networks)


@given(KEYS, RESTRICTIONS, DEVICES, SHOWN)
def test_an_imported_device_may_register_with_any_key_of_its_fleet_that_allows_new_ones(
    key: ProvisioningKey, restrictions: Restrictions, device: Registered, shown: dict[str, Any]
) -> None:
    """It may do so once; then it belongs to that key and needs its own API key."""
    restricted = replace(key, restrictions=restrictions)
    imported = replace(device, provisioned_by_key_id=None, reprovisioning_allowed=False)
    found = outcome(restricted, imported, is_same_api_key=False, **shown)
    new = outcome(
        restricted, None, is_same_api_key=False, **{**shown, "expected_in": imported.fleet_id}
    )
    if imported.fleet_id == key.fleet_id and new is Decision.CREATE:
        assert found is (Decision.RENEW if imported.is_active else DeviceDisabled)
    else:
        assert found is (DeviceTaken if new is UuidReserved else new)
    registered = replace(imported, provisioned_by_key_id=key.id)
    again = outcome(restricted, registered, is_same_api_key=False, **shown)
    assert again is not Decision.RENEW


@given(KEYS, RESTRICTIONS, st.none() | DEVICES, st.booleans(), SHOWN, st.data())
def test_a_prefix_keeps_new_devices_in_their_fleet_and_others_out(
    key: ProvisioningKey,
    restrictions: Restrictions,
    device: Registered | None,
    is_same_api_key: bool,
    shown: dict[str, Any],
    data: st.DataObject,
) -> None:
    key = replace(key, restrictions=restrictions)
    free = outcome(key, device, is_same_api_key=is_same_api_key, **shown)
    prefix = data.draw(st.sampled_from([None, "sensor-", "router-", "x"]))
    # As the database finds it: only the fleet's own prefix can be that of its uuids.
    is_own = prefix is not None and shown["uuid"].startswith(prefix)
    reserved_for = "demo" if is_own else data.draw(st.sampled_from([None, "other"]))
    prefixed = replace(key, fleet_uuid_prefix=prefix)
    decided = outcome(
        prefixed, device, is_same_api_key=is_same_api_key, reserved_for=reserved_for, **shown
    )
    if free is not Decision.CREATE or device is not None:
        assert decided == free or (decided in (UuidNotAllowed, UuidReserved) and device is None)
    elif prefix is not None and not is_own:
        assert decided is UuidNotAllowed
    else:
        assert decided is (UuidReserved if reserved_for == "other" else Decision.CREATE)
