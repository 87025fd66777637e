"""Which requests the console takes for those of its own pages."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.console.same_origin import (
    ForeignOrigin,
    FormExpired,
    form_token_of,
    require_form_token,
    require_own_host,
    require_own_page,
)

PUBLIC = "https://mooring.example.com"


@pytest.mark.parametrize(
    ("scheme", "host", "public_url"),
    [
        ("http", "127.0.0.1:4002", ""),
        ("http", "localhost:4002", ""),
        ("http", "localhost", ""),
        ("http", "[::1]:4002", ""),
        ("https", "gateway.internal", ""),
        ("http", "mooring.example.com", PUBLIC),
    ],
)
def test_own_hosts(scheme: str, host: str, public_url: str) -> None:
    require_own_host(scheme, host, public_url)


@pytest.mark.parametrize(
    ("host", "public_url"),
    [
        ("", ""),
        ("evil.example", ""),
        ("evil.example:4002", PUBLIC),
        ("localhost.evil.example", ""),
        ("127.0.0.1.evil.example", ""),
        ("mooring.example.com.evil.example", PUBLIC),
        ("localhost@evil.example", ""),
        ("[", ""),
        ("[::1", ""),
        ("[v1.x]", ""),
    ],
)
def test_other_hosts(host: str, public_url: str) -> None:
    with pytest.raises(ForeignOrigin):
        require_own_host("http", host, public_url)


@given(st.text(), st.sampled_from(["", PUBLIC]))
def test_no_host_is_a_fault(host: str, public_url: str) -> None:
    try:
        require_own_host("http", host, public_url)
    except ForeignOrigin:
        return
    assert any(known in host for known in ("localhost", "127.", "::", "mooring.example.com"))


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-site", "origin": PUBLIC}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": PUBLIC, "host": "mooring.example.com"}, True),
        ({"origin": "https://mooring.example.com", "host": "10.0.0.1"}, True),
        ({"origin": "https://mooring.example.com:444", "host": "10.0.0.1"}, False),
        ({"origin": "null"}, False),
        ({}, False),
    ],
)
def test_pages(headers: dict[str, str], is_own: bool) -> None:
    if is_own:
        require_own_page(headers, "http", PUBLIC)
    else:
        with pytest.raises(ForeignOrigin):
            require_own_page(headers, "http", PUBLIC)


# Like those of sessions. HMAC fills short keys with zero bytes, which makes "" and a zero byte one.
session_secrets = st.text(string.ascii_letters + string.digits, min_size=43)


@given(session_secrets, session_secrets)
def test_a_form_token_is_that_of_its_session(one: str, other: str) -> None:
    require_form_token(form_token_of(one), one)
    assert one not in form_token_of(one)
    for wrong in (other, form_token_of(other)) if one != other else (other,):
        with pytest.raises(FormExpired):
            require_form_token(wrong, one)
