"""Decides to which addresses a process may connect, if operators name the hosts.

A policy checks addresses, not names: a name is resolved first, and the process connects to an
address that the policy allows (`chassis/connecting.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, PlainSerializer
from pydantic_settings import NoDecode

from chassis.hosts import Address, unwrapped

Network: TypeAlias = IPv4Network | IPv6Network

NAME = "BROKER_ADDRESS_POLICY"
ANY, NOT_LOCAL, PUBLIC = "any", "not-local", "public"
# Addresses at which clouds serve secrets of the machine, in addition to link-local addresses: AWS,
# Google, Alibaba, Azure, Oracle.
METADATA: tuple[Network, ...] = tuple(
    map(
        ip_network,
        ("fd00:ec2::/32", "fd20:ce::/32", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)
THIS_NETWORK = IPv4Network("0.0.0.0/8")
# IPv6 addresses that stand for the IPv4 address in their last 32 bits: RFC 4291 (2.5.5.1 and
# 2.5.5.2), RFC 2765, RFC 6052 and RFC 8215.
IPV4_IN_LAST = tuple(
    map(
        IPv6Network,
        ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"),
    )
)
# IANA's registries of special addresses (RFC 6890): networks that are not reachable everywhere, and
# networks inside them that are. They are here because versions of Python have different tables. A
# 6to4 address is as public as the IPv4 address in it.
NOT_PUBLIC: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
            *("64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001:db8::/32"),
            *("3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"),
        ),
    )
)
PUBLIC_WITHIN: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            *("192.0.0.9/32", "192.0.0.10/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128"),
            *("2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28"),
        ),
    )
)
# RFC 8215: local networks translate addresses below this prefix, with any length of RFC 6052 (2.2).
TRANSLATED = IPv6Network("64:ff9b:1::/48")
# RFC 5214: the interface id 0:5efe or 200:5efe, before an IPv4 address.
ISATAP = (0x00005EFE, 0x02005EFE)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The policy of BROKER_ADDRESS_POLICY."""

    # ANY, NOT_LOCAL or PUBLIC; empty if only `networks` are allowed.
    rule: str
    networks: tuple[Network, ...] = ()

    def __str__(self) -> str:
        """As it is written in a setting."""
        return self.rule or ",".join(map(str, self.networks))

    @classmethod
    def parse(cls, text: str) -> "AddressPolicy":
        """Reads `any`, `not-local`, `public`, or networks separated by commas.

        Raises `ValueError`.
        """
        if text in (ANY, NOT_LOCAL, PUBLIC):
            return cls(text)
        networks = tuple(ip_network(part.strip()) for part in text.split(","))
        return cls("", networks)

    def refusal_of(self, address: Address) -> str | None:
        """Why the address is refused; None if it is allowed."""
        if self.rule == ANY:
            return None
        if not self.rule:
            is_named = any(unwrapped(address) in network for network in self.networks)
            return None if is_named else "is in none of the networks that are allowed"
        for one in (address, *_embedded_in(address)):
            if reason := _locality_of(one):
                return reason
            if self.rule == PUBLIC and not _is_public(one):
                return "is not a public address"
        return None


UNRESTRICTED = AddressPolicy(ANY)
DEFAULT = AddressPolicy(NOT_LOCAL)


def _parsed(given: object) -> object:
    """Reads a policy. Raises `ValueError` for other text."""
    return AddressPolicy.parse(given) if isinstance(given, str) else given


# The type of a setting.
PolicySetting = Annotated[AddressPolicy, NoDecode, BeforeValidator(_parsed), PlainSerializer(str)]


def _locality_of(address: Address) -> str | None:
    if address.is_loopback:
        return "is a loopback address"
    if address.is_unspecified or address in THIS_NETWORK:
        return "stands for this machine"
    if any(address in network for network in METADATA):
        return "is where clouds serve metadata"
    if address.is_link_local or (isinstance(address, IPv6Address) and address.is_site_local):
        return "is a link-local address"
    if address.is_multicast or address == IPv4Address("255.255.255.255"):
        return "is no address of one machine"
    return None


def _is_public(address: Address) -> bool:
    return any(address in network for network in PUBLIC_WITHIN) or not any(
        address in network for network in NOT_PUBLIC
    )


def _embedded_in(address: Address) -> Iterator[Address]:
    """The IPv4 addresses that a packet to this IPv6 address may reach."""
    if isinstance(address, IPv4Address):
        return
    number = int(address)
    last = IPv4Address(number & 0xFFFFFFFF)
    is_isatap = number >> 32 & 0xFFFFFFFF in ISATAP
    # The unspecified and the loopback address contain no IPv4 address.
    if is_isatap or (number > 1 and any(address in network for network in IPV4_IN_LAST)):
        yield last
    if address in TRANSLATED:
        yield from _translated_in(number)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def _translated_in(number: int) -> Iterator[IPv4Address]:
    """The IPv4 address behind a prefix of 48, 56 or 64 bits; bits 64 to 71 are not part of it."""
    high, low = number >> 64, number & (1 << 56) - 1
    for bits in (16, 8, 0):
        yield IPv4Address(((high & (1 << bits) - 1) << 32 - bits) | low >> 24 + bits)
