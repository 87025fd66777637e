"""The settings that a broker may have, and the differences between two of its revisions."""

import json
from dataclasses import fields, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_service.differences import (
    COMPARED,
    NOT_COMPARED,
    SECRETS,
    differences,
)
from broker_service.settings import (
    MANAGEMENTS,
    RULES,
    Settings,
    check,
    check_labels,
    check_login,
    url_of,
)
from broker_service.tables import brokers
from chassis.audit import HIDDEN
from chassis.errors import InvalidInput
from chassis.hosts import MAX_HOST, NUMBER

NAME = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


def refused_field(**changes: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        check(Settings(**{"name": "n", "host": "h", "port": 1, **changes}))
    return refused.value.field


@given(st.lists(NAME, min_size=1, max_size=4).map(".".join))
def test_every_name_of_rfc_1123_is_a_host(host: str) -> None:
    # Resolvers read names that end in a number as addresses.
    is_number = NUMBER.fullmatch(host.rpartition(".")[2])
    if not is_number and len(host) <= MAX_HOST:
        check(Settings(name="n", host=host, port=1))


@given(st.ip_addresses())
def test_every_address_is_a_host_and_ipv6_has_brackets_in_urls(
    address: IPv4Address | IPv6Address,
) -> None:
    check(Settings(name="n", host=str(address), port=1))
    url = url_of("mqtt", str(address), 1, "")
    assert url == (f"mqtt://[{address}]:1" if address.version == 6 else f"mqtt://{address}:1")


@given(st.text(max_size=60))
def test_every_accepted_host_is_valid_in_a_url(host: str) -> None:
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
        ({"management": "hivemq"}, "management"),
        ({"management": "EMQX", "management_url": "https://h"}, "management"),
        ({"management": "emqx"}, "management_url"),
        ({"management": "rabbitmq"}, "management_url"),
        ({"management_url": "https://h"}, "management_url"),
        ({"management": "mosquitto", "management_url": "https://h"}, "management_url"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    assert refused_field(**changes) == field


LOOPBACK = ("localhost", "127.0.0.1", "127.9.9.9", "[::1]")


@pytest.mark.parametrize(
    "url",
    [
        *(f"http://{host}:18083" for host in LOOPBACK),
        *("http://localhost", "http://localhost/", "https://localhost:443/a"),
        *("https://emqx.example.com", "https://emqx.example.com:18083/", "https://10.0.0.1:65535"),
        *("https://[2001:db8::1]:15671/api", "https://h/a%20b/~c/@d"),
        "https://h/" + "a" * 1_990,
    ],
)
def test_a_management_url_is_https_or_on_this_machine(url: str) -> None:
    for management in ("emqx", "rabbitmq"):
        check(Settings(name="n", host="h", port=1, management=management, management_url=url))


@pytest.mark.parametrize(
    "url",
    [
        *("h", "h:18083", "//h", "https://", "https:///a", "https://:80", "https:h", "https:/h"),
        *("ftp://h", "mqtts://h", "file:///etc/passwd", "unix:/run/x", "HTTPS://h", "javascript:1"),
        *("https://u@h", "https://u:p@h", "https://@h", "https://:p@h", "https://h@"),
        *("https://h#a", "https://h/#", "https://h?a=b", "https://h/?", "https://h/a?b#c"),
        *("https://h:0", "https://h:65536", "https://h:", "https://h:x", "https://h:80:80"),
        *("https://[::1", "https://::1", "https://[1.2.3.4]", "https://[h]", "https://[fe80::1%a]"),
        *("https://256.1.1.1", "https://127.1", "https://0x7f.1", "https://-a", "https://a."),
        *(" https://h", "https://h ", "https://h\n", "https://h/a b", "https://h\\@a", "https://é"),
        *("https://h/é", "https://h\0", "https://h\t", "https://h/" + "a" * 1_991),
        # Requests that leave the machine must be encrypted.
        *("http://h", "http://10.0.0.1", "http://[2001:db8::1]", "http://0.0.0.0", "http://[::]"),
        *("http://[::ffff:127.0.0.1]", "http://[0:0:0:0:0:0:0:1]"),
        *("http://localhost.example.com", "http://127.0.0.1.example.com", "http://127.0.0.1@h"),
        *("http://localhost\\@h", "http://h/127.0.0.1", "http://localhost:80@h"),
    ],
)
def test_other_management_urls_are_refused(url: str) -> None:
    assert refused_field(management="emqx", management_url=url) == "management_url"


PIECES = (
    "localhost",
    "127.0.0.1",
    "[::1]",
    "[::]",
    "h",
    "é",
    ".",
    ":80",
    ":",
    "@",
    "/",
    "\\",
    "?",
    "#",
)


@given(
    st.sampled_from(["http://", "https://", ""]),
    st.lists(st.sampled_from(PIECES) | st.characters(), max_size=5).map("".join),
)
def test_every_accepted_management_url_is_read_alike_by_other_parsers(
    scheme: str, rest: str
) -> None:
    url = scheme + rest
    try:
        check(Settings(name="n", host="h", port=1, management="emqx", management_url=url))
    except InvalidInput:
        return
    parts = urlsplit(url)
    assert parts.geturl() == url
    assert (parts.username, parts.password, parts.query, parts.fragment) == (None, None, "", "")
    host = parts.hostname or ""
    assert host
    assert parts.scheme == "https" or host in ("localhost", "::1") or IPv4Address(host).is_loopback


def test_labels_in_the_form_of_kubernetes_are_accepted() -> None:
    check_labels({"tier": "", "example.com/site": "Berlin, 2nd floor", "a_b.c-d": "ü", "A": "x"})


def test_a_password_needs_a_username() -> None:
    settings = Settings(name="n", host="h", port=1)
    check_login(settings, has_password=False)
    with pytest.raises(InvalidInput):
        check_login(settings, has_password=True)


@pytest.mark.parametrize("management", MANAGEMENTS[1:])
def test_a_management_needs_a_username_and_a_password(management: str) -> None:
    settings = Settings(name="n", host="h", port=1, management=management)
    for username, has_password in ((None, False), (None, True), ("u", False)):
        with pytest.raises(InvalidInput) as refused:
            check_login(replace(settings, username=username), has_password=has_password)
        assert refused.value.field == "management"
    check_login(replace(settings, username="u"), has_password=True)


def test_each_column_is_compared_or_secret_or_deliberately_neither() -> None:
    assert sorted((*COMPARED, *SECRETS, *NOT_COMPARED)) == sorted(brokers.c.keys())


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
STATES = st.fixed_dictionaries(dict.fromkeys(COMPARED, VALUES)).flatmap(
    lambda columns: st.binary(max_size=4).map(lambda kept: columns | {"password_encrypted": kept})
)


@given(STATES)
def test_a_revision_does_not_differ_from_itself(state: dict[str, Any]) -> None:
    assert differences(state, dict(state)) == {}


@given(STATES, STATES)
def test_differences_lead_from_one_revision_to_the_other_and_back(
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
def test_no_secret_is_shown(one: dict[str, Any] | None, other: dict[str, Any] | None) -> None:
    changes = differences(one, other)
    if "password" in changes:
        for state, shown in ((one, changes["password"].before), (other, changes["password"].after)):
            assert shown == (
                HIDDEN if (state or {}).get("password_encrypted") is not None else None
            )
    assert "password_encrypted" not in changes
    json.dumps([(change.before, change.after) for change in changes.values()])  # no bytes


def test_a_later_column_is_not_a_difference() -> None:
    old = {"name": "a", "password_encrypted": None}
    assert differences(old, old | {"labels": {}}) == {}
    assert set(differences(None, old)) == {"name"}


# Values by field that the API refuses; an earlier rule, or SQL, may have allowed them.
REFUSED_TODAY: dict[str, Any] = {
    "name": "",
    "host": "127.1",
    "port": 0,
    "description": "\n",
    "protocol": "tcp",
    "path": "/a b",
    "client_id_prefix": "p" * 65,
    "keep_alive": -1,
    "reconnect_period": -1,
    "connect_timeout": 0,
    "region": "\t",
    "username": "",
    "labels": {"-": ""},
    "management": "other",
    "management_url": "http://broker.example",
    "backup_broker_id": 0,
    "capacity": -1,
}


def test_every_field_that_can_be_wrong_has_a_rule() -> None:
    free = {"verify_certificate", "clean_session", "is_active"}
    ruled = {name for names, _ in RULES for name in names}
    assert ruled | free == {field.name for field in fields(Settings)}
    assert REFUSED_TODAY.keys() == ruled - {"use_tls"}


@pytest.mark.parametrize("kept", REFUSED_TODAY)
def test_an_unchanged_value_is_not_checked_again(kept: str) -> None:
    sound = Settings(name="n", host="h", port=1, protocol="ws")
    before = replace(sound, **{kept: REFUSED_TODAY[kept]})
    with pytest.raises(InvalidInput):
        check(before)
    with pytest.raises(InvalidInput):
        check(before, sound)
    check(replace(before, is_active=False), before)
    for changed, value in REFUSED_TODAY.items():
        if changed != kept:
            with pytest.raises(InvalidInput):
                check(replace(before, **{changed: value}), before)
    # Changing it to a valid value is allowed.
    check(sound, before)
