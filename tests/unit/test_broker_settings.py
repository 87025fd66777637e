"""What may be configured of a broker, and what differs between two revisions of it."""

import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_service.brokers.differences import (
    COMPARED,
    NOT_COMPARED,
    SECRETS,
    differences,
)
from broker_service.brokers.settings import Settings, check, check_labels, check_login, url_of
from broker_service.tables import brokers
from chassis.audit import HIDDEN
from chassis.errors import InvalidInput

NAME = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


def refused_field(**changes: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        check(Settings(**{"name": "n", "host": "h", "port": 1, **changes}))
    return refused.value.field


@given(st.lists(NAME, min_size=1, max_size=4).map(".".join))
def test_every_name_of_rfc_1123_is_a_host(host: str) -> None:
    if not host.rpartition(".")[2].isdigit():
        check(Settings(name="n", host=host, port=1))


@given(st.ip_addresses())
def test_every_address_is_a_host_and_ipv6_stands_in_brackets_in_urls(
    address: IPv4Address | IPv6Address,
) -> None:
    check(Settings(name="n", host=str(address), port=1))
    url = url_of("mqtt", str(address), 1, "")
    assert url == (f"mqtt://[{address}]:1" if address.version == 6 else f"mqtt://{address}:1")


@given(st.text(max_size=60))
def test_whatever_is_taken_for_a_host_belongs_into_a_url(host: str) -> None:
    try:
        check(Settings(name="n", host=host, port=1))
    except InvalidInput:
        return
    assert host.isascii()
    assert not set(host) & set("/[]@?#% \t\n\0")
    assert ":" not in host or ip_address(host).version == 6


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"host": "[::1]"}, "host"),
        ({"host": "mqtt://h"}, "host"),
        ({"host": "h:1883"}, "host"),
        ({"host": "fe80::1%eth0"}, "host"),
        ({"host": "a" * 64}, "host"),
        ({"host": ".".join(["a" * 60] * 5)}, "host"),
        ({"port": 0}, "port"),
        ({"port": 65_536}, "port"),
        ({"protocol": "tcp"}, "protocol"),
        ({"protocol": "mqtts", "use_tls": False}, "use_tls"),
        ({"protocol": "ws", "use_tls": True}, "use_tls"),
        ({"path": "/x"}, "path"),
        ({"protocol": "ws", "path": "x"}, "path"),
        ({"protocol": "ws", "path": "/a b"}, "path"),
        ({"keep_alive": -1}, "keep_alive"),
        ({"keep_alive": 65_536}, "keep_alive"),
        ({"username": ""}, "username"),
        ({"username": "a\nb"}, "username"),
        ({"labels": {"": "x"}}, "labels"),
        ({"labels": {"-a": "x"}}, "labels"),
        ({"labels": {"a" * 64: "x"}}, "labels"),
        ({"labels": {"/a": "x"}}, "labels"),
        ({"labels": {"a/b/c": "x"}}, "labels"),
        ({"labels": {"a": "x" * 256}}, "labels"),
        ({"labels": {"a": "\0"}}, "labels"),
        ({"labels": {f"k{n}": "" for n in range(65)}}, "labels"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    assert refused_field(**changes) == field


def test_labels_like_those_of_kubernetes_are_taken() -> None:
    check_labels({"tier": "", "example.com/site": "Berlin, 2nd floor", "a_b.c-d": "ü", "A": "x"})


def test_a_password_needs_a_username() -> None:
    settings = Settings(name="n", host="h", port=1)
    check_login(settings, has_password=False)
    with pytest.raises(InvalidInput):
        check_login(settings, has_password=True)


def test_each_column_is_compared_or_secret_or_neither_on_purpose() -> None:
    assert sorted((*COMPARED, *SECRETS, *NOT_COMPARED)) == sorted(brokers.c.keys())


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
STATES = st.fixed_dictionaries(dict.fromkeys(COMPARED, VALUES)).flatmap(
    lambda columns: st.binary(max_size=4).map(lambda kept: columns | {"password_encrypted": kept})
)


@given(STATES)
def test_nothing_differs_from_itself(state: dict[str, Any]) -> None:
    assert differences(state, dict(state)) == {}


@given(STATES, STATES)
def test_differences_lead_from_one_to_the_other_and_back(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    changes = differences(one, other)
    forth = {name: change.after for name, change in changes.items() if not change.is_secret}
    back = {name: change.before for name, change in changes.items() if not change.is_secret}
    secrets = {"password_encrypted"}
    assert {k: v for k, v in (one | forth).items() if k not in secrets} == {
        k: v for k, v in other.items() if k not in secrets
    }
    assert {k: v for k, v in (other | back).items() if k not in secrets} == {
        k: v for k, v in one.items() if k not in secrets
    }
    assert ("password" in changes) == (one["password_encrypted"] != other["password_encrypted"])
    assert set(differences(other, one)) == set(changes)


@given(STATES | st.none(), STATES | st.none())
def test_no_secret_is_told(one: dict[str, Any] | None, other: dict[str, Any] | None) -> None:
    changes = differences(one, other)
    if "password" in changes:
        for state, told in ((one, changes["password"].before), (other, changes["password"].after)):
            assert told == (HIDDEN if (state or {}).get("password_encrypted") is not None else None)
    assert "password_encrypted" not in changes
    json.dumps([(change.before, change.after) for change in changes.values()])  # no bytes


def test_a_column_that_came_later_is_no_difference() -> None:
    old = {"name": "a", "password_encrypted": None}
    assert differences(old, old | {"labels": {}}) == {}
    assert set(differences(None, old)) == {"name"}
