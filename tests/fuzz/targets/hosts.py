"""Hosts, the URLs of brokers and of management APIs, and the policy of addresses."""

from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

import httpx2

from broker_service.settings import _check_management_url, url_of
from chassis.address_policy import DEFAULT, AddressPolicy
from chassis.errors import InvalidInput
from chassis.hosts import _checked_mqtt_url, check_host
from tests.fuzz.given import chosen

SEEDS = tuple(
    bytes((index,)) + text.encode()
    for index, texts in enumerate(
        (
            ("iot_mosquitto", "a.b-c", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1%eth0", "0x7f.1"),
            (
                "mqtts://h:1/a",
                "wss://[2001:db8::1]/",
                "mqtt://127.1",
                "ws://a_b:65536",
                "mqtt://h:",
            ),
            ("https://h:1/a%20b", "http://[::1]:15672", "http://localhost/", "https://[::]/%"),
            ("any", "not-local", "10.0.0.0/8, ::1", "public", "0.0.0.0/0", "::/0,"),
            (
                "::1",
                "64:ff9b::7f00:1",
                "2002:7f00:1::",
                "::ffff:a9fe:a9fe",
                "2001:0:1::",
                "0.0.0.1",
            ),
        )
    )
    for text in texts
)
WORDS = (b"::", b"xn--", b"0x", b".", b"_", b"-", b"[", b"]", b"%", b"@", b":65535", b"\0", b"\n")


def _host(text: str) -> None:
    address = check_host(text, field="host")
    assert text.isascii()
    url = url_of("mqtts", text, 8883, "/mqtt")
    parts = urlsplit(url)
    assert parts.port == 8883
    assert parts.hostname == text.lower()
    if address is None:
        text.encode("idna")
    else:
        assert isinstance(address, IPv6Address) == (":" in text)


def _broker_url(text: str) -> None:
    with suppress(ValueError):
        parts = urlsplit(_checked_mqtt_url(text))
        assert parts.hostname
        assert parts.username is None
        check_host(parts.hostname, field="host")


def _management_url(text: str) -> None:
    _check_management_url(text)
    ours, theirs = urlsplit(text), httpx2.URL(text.rstrip("/"))
    named = ours.hostname or ""
    assert theirs.host == named or ip_address(theirs.host) == ip_address(named)
    assert (theirs.port or 443) == (ours.port or 443) or theirs.port is None
    assert not theirs.userinfo


def _policy(text: str) -> None:
    try:
        policy = AddressPolicy.parse(text)
    except ValueError:
        return
    for address in ("127.0.0.1", "::1", "2001:db8::1", "192.0.2.1"):
        policy.refusal_of(ip_address(address))


def _address(text: str) -> None:
    try:
        address = ip_address(text)
    except ValueError:
        return
    is_refused = DEFAULT.refusal_of(address) is not None
    # What the more lenient rule refuses, every rule refuses.
    assert not is_refused or AddressPolicy("public").refusal_of(address) is not None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is not None and DEFAULT.refusal_of(mapped) is not None:
        assert is_refused


KINDS = (_host, _broker_url, _management_url, _policy, _address)


def attempt(data: bytes) -> None:
    kind, rest = chosen(data, KINDS)
    with suppress(InvalidInput):
        kind(rest.decode("utf-8", "replace"))
