"""Restrictions of a key as operators write them: stored as PostgreSQL writes them, or refused."""

import contextlib
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mooring.registry.v1 import provisioning_keys_pb2 as pb

from chassis.errors import InvalidInput
from registry_service.administration.provisioning_keys.restrictions import (
    COLUMNS,
    columns_of,
    network,
)
from registry_service.provisioning.decision import is_within


def columns(**restrictions: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        name: pb.Allowed(values=value) if isinstance(value, list) else value
        for name, value in restrictions.items()
    }
    return columns_of(pb.Restrictions(**given), restrictions)


def test_a_restriction_that_is_not_set_is_cleared() -> None:
    cleared = columns_of(pb.Restrictions(), COLUMNS)
    assert cleared == {**dict.fromkeys(COLUMNS.values()), "only_expected": False}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_is_stored_in_one_form(written: str, kept: str) -> None:
    assert network("x", written) == kept


@pytest.mark.parametrize(
    "written",
    [
        "192.0.2.1/24",
        "2001:db8::1/32",
        "192.0.2.0/33",
        "192.0.2.0/-1",
        "192.0.2.0/",
        "192.0.2.0/255.255.255.0",
        "192.0.2.0/0.0.0.255",
        "192.0.2.0/24/24",
        "192.0.2/24",
        "192.000.002.000/24",
        "fe80::%eth0/64",
        "::ffff:192.0.2.0/120",
        "::ffff:192.0.2.1",
        "192.0.2.0/\uff124",
        "192.0.2.0/24\0",
        " 192.0.2.0/24",
        "example.com",
        "",
    ],
)
def test_an_invalid_network_is_refused_by_its_place(written: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        columns(source_networks=["10.0.0.0/8", written])
    assert refused.value.field == "source_networks[1]"
    assert "\0" not in refused.value.message


def test_bits_beyond_the_prefix_are_refused_with_the_corrected_network() -> None:
    with pytest.raises(InvalidInput, match=r"192\.0\.2\.0/24"):
        network("x", "192.0.2.77/24")


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.data())
def test_a_network_contains_its_addresses(address: Any, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, address.max_prefixlen))
    written = str(ip_network(f"{address}/{length}", strict=False))
    try:
        kept = network("x", written)
    except InvalidInput:
        assert written.startswith("::ffff:")
        return
    if getattr(address, "ipv4_mapped", None) is None:
        assert is_within(str(address), (kept,))


@given(st.text(max_size=30))
def test_any_text_is_a_network_or_is_refused(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert str(ip_network(kept := network("x", text))) == kept


@pytest.mark.parametrize(
    ("restrictions", "field"),
    [
        ({"uuids": ["fine", "not/fine"]}, "allowed_uuids[1]"),
        ({"uuids": ["nul\0"]}, "allowed_uuids[0]"),
        ({"uuids": []}, "allowed_uuids"),
        ({"uuids": [f"u{n}" for n in range(1_001)]}, "allowed_uuids"),
        ({"device_types": [""]}, "allowed_device_types[0]"),
        ({"device_types": ["nul\0"]}, "allowed_device_types[0]"),
        ({"device_types": ["t" * 65]}, "allowed_device_types[0]"),
        ({"device_types": [f"t{n}" for n in range(101)]}, "allowed_device_types"),
        ({"source_networks": []}, "source_networks"),
        ({"uuid_prefix": ""}, "uuid_prefix"),
        ({"uuid_prefix": ".a"}, "uuid_prefix"),
        ({"uuid_prefix": "a" * 65}, "uuid_prefix"),
    ],
)
def test_an_invalid_value_is_refused_by_name(restrictions: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        columns(**restrictions)
    assert refused.value.field == field


def test_a_value_that_is_given_twice_is_kept_once() -> None:
    kept = columns(uuids=["a", "b", "a"], source_networks=["192.0.2.1", "192.0.2.1/32"])
    assert kept == {"allowed_uuids": ["a", "b"], "source_networks": ["192.0.2.1/32"]}
