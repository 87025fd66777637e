"""The addresses that a policy allows, in every notation."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.address_policy import DEFAULT, PUBLIC, UNRESTRICTED, AddressPolicy

PUBLIC_ONLY = AddressPolicy(PUBLIC)
LOCAL = (
    *("127.0.0.1", "127.255.255.254", "0.1.2.3", "169.254.169.254", "169.254.0.1"),
    "0.0.0.0",  # noqa: S104 - nothing is bound
    *("255.255.255.255", "224.0.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "fd00:ec2::254"),
    *("fd20:ce::254", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1", "::ffff:0:127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b:1::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
    *("2001:0:7f00:1::", "2001:0:808:808::80ff:fffe", "2001:db8::5efe:127.0.0.1"),
    *("2001:db8::200:5efe:a9fe:a9fe", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"),
)
PRIVATE = ("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.1")
WORLD = ("8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8", "2002:808:808::1")
# The ends of special networks, and the addresses next to them, which all versions of Python treat
# alike.
SPECIAL = {
    "0.0.0.0/8": ("1.0.0.0",),
    "10.0.0.0/8": ("9.255.255.255", "11.0.0.0"),
    "100.64.0.0/10": ("100.63.255.255", "100.128.0.0"),
    "127.0.0.0/8": ("126.255.255.255", "128.0.0.0"),
    "169.254.0.0/16": ("169.253.255.255", "169.255.0.0"),
    "172.16.0.0/12": ("172.15.255.255", "172.32.0.0"),
    "192.0.0.0/29": ("191.255.255.255", "192.0.0.9", "192.0.0.10"),
    "192.0.0.11/32": ("192.0.1.0",),
    "192.0.2.0/24": ("192.0.1.255", "192.0.3.0"),
    "192.168.0.0/16": ("192.167.255.255", "192.169.0.0"),
    "198.18.0.0/15": ("198.17.255.255", "198.20.0.0"),
    "198.51.100.0/24": ("198.51.99.255", "198.51.101.0"),
    "203.0.113.0/24": ("203.0.112.255", "203.0.114.0"),
    "240.0.0.0/4": ("223.255.255.255",),
    "64:ff9b:1::/48": ("64:ff9b::808:808",),
    "100::/64": (),
    "100:0:0:1::/64": (),
    "2001::/32": (),
    "2001:2::/48": ("2001:1::1", "2001:1::2", "2001:1::3", "2001:3::", "2001:4:112::"),
    "2001:10::/28": ("2001:20::", "2001:30::", "2001:200::"),
    "2001:db8::/32": ("2001:db7:ffff::", "2001:db9::"),
    "3fff::/20": ("3ffe:ffff::", "3fff:1000::"),
    "5f00::/16": (),
    "fc00::/7": (),
    "fe80::/10": (),
}
ADDRESSES = st.ip_addresses()


@pytest.mark.parametrize("text", LOCAL)
def test_an_address_of_this_machine_is_refused(text: str) -> None:
    for policy in (DEFAULT, PUBLIC_ONLY):
        assert policy.refusal_of(ip_address(text)), policy
    assert UNRESTRICTED.refusal_of(ip_address(text)) is None


@pytest.mark.parametrize("text", PRIVATE)
def test_a_private_address_is_allowed_by_the_default_only(text: str) -> None:
    assert DEFAULT.refusal_of(ip_address(text)) is None
    assert PUBLIC_ONLY.refusal_of(ip_address(text)) == "is not a public address"


@pytest.mark.parametrize("text", WORLD)
def test_a_public_address_is_allowed(text: str) -> None:
    for policy in (DEFAULT, PUBLIC_ONLY):
        assert policy.refusal_of(ip_address(text)) is None


@pytest.mark.parametrize("text", SPECIAL)
def test_public_follows_the_registries_of_special_addresses(text: str) -> None:
    network = ip_network(text)
    for special in (network[0], network[-1], *_mapped(network[0])):
        assert PUBLIC_ONLY.refusal_of(special), special
    for outside in map(ip_address, SPECIAL[text]):
        for one in (outside, *_mapped(outside)):
            assert PUBLIC_ONLY.refusal_of(one) is None, one


def _mapped(address: IPv4Address | IPv6Address) -> list[IPv6Address]:
    return [IPv6Address(f"::ffff:{address}")] if isinstance(address, IPv4Address) else []


@given(ADDRESSES)
def test_an_address_that_the_default_refuses_is_not_public(
    address: IPv4Address | IPv6Address,
) -> None:
    if DEFAULT.refusal_of(address):
        assert PUBLIC_ONLY.refusal_of(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_refused_in_every_notation(address: IPv4Address) -> None:
    number = int(address)
    disguises = (
        *(IPv6Address(number | 0xFFFF << 32), IPv6Address(number | 0xFFFF << 48)),
        *(IPv6Address(number | 0x64FF9B << 96), IPv6Address(number | 0x64FF9B0001 << 80)),
        *(IPv6Address(0x2002 << 112 | number << 80), IPv6Address(0x20010000 << 96 | number << 64)),
        IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | (number ^ 0xFFFFFFFF)),
        # RFC 6052 (2.2): after prefixes of 48, 56 and 64 bits, around bits 64 to 71.
        *(
            IPv6Address(
                0x64FF9B0001 << 80
                | (number >> 32 - bits) << 64
                | (number & (1 << 32 - bits) - 1) << 24 + bits
            )
            for bits in (16, 8, 0)
        ),
        *(IPv6Address(0x2606 << 112 | 0x5EFE << 32 | number),),
        *(IPv6Address(0x2606 << 112 | 0x02005EFE << 32 | number),),
    )
    for policy in (DEFAULT, PUBLIC_ONLY):
        if policy.refusal_of(address):
            for one in disguises:
                assert policy.refusal_of(one), (one, address)


@given(ADDRESSES)
def test_networks_allow_their_addresses(address: IPv4Address | IPv6Address) -> None:
    policy = AddressPolicy.parse("10.0.0.0/8, fd00::/8,192.0.2.7")
    inside = (
        address.packed[0] == (10 if address.version == 4 else 0xFD) or str(address) == "192.0.2.7"
    )
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is None:
        assert (policy.refusal_of(address) is None) == inside


def test_networks_unwrap_mapped_addresses() -> None:
    policy = AddressPolicy.parse("10.0.0.0/8")
    assert policy.refusal_of(ip_address("::ffff:10.1.2.3")) is None
    assert policy.refusal_of(ip_address("::ffff:127.0.0.1"))
    assert AddressPolicy.parse("::/0").refusal_of(ip_address("::ffff:127.0.0.1"))
    assert AddressPolicy.parse("127.0.0.0/8").refusal_of(ip_address("127.0.0.1")) is None


@pytest.mark.parametrize("text", ["", "none", "10.0.0.1/8", "any,10.0.0.0/8", "local", "256.0.0.0"])
def test_an_invalid_policy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        AddressPolicy.parse(text)
