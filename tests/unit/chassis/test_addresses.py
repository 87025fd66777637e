"""The client's address behind proxies: only headers of trusted proxies count."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import client_of, networks_of

PROXIES = networks_of("10.0.0.0/8, 2001:db8:1::/48")
PROXY = ("10.0.0.1", 4711)
TRUSTED = st.sampled_from(["10.0.0.2", "10.255.0.1", "2001:db8:1::2", "::ffff:10.0.0.3"])
STRANGERS = st.ip_addresses().filter(
    lambda address: (
        not any((getattr(address, "ipv4_mapped", None) or address) in proxy for proxy in PROXIES)
    )
)
FORGED = st.lists(
    st.text(st.characters(max_codepoint=255), max_size=40) | TRUSTED | STRANGERS.map(str)
)


def forwarded(*lines: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", line.encode("latin-1")) for line in lines]


@given(STRANGERS.map(str), FORGED)
def test_the_header_of_an_untrusted_address_is_ignored(peer: str, lines: list[str]) -> None:
    assert client_of((peer, 1), forwarded(*lines), PROXIES) == (peer, 1)


@given(FORGED)
def test_without_trusted_proxies_the_header_is_ignored(lines: list[str]) -> None:
    assert client_of(PROXY, forwarded(*lines), ()) == PROXY


@given(FORGED, STRANGERS, st.lists(TRUSTED, max_size=4), st.booleans())
def test_the_last_untrusted_address_is_the_client_whatever_it_wrote_before(
    lines: list[str], stranger: object, chain: list[str], is_one_line: bool
) -> None:
    """Each proxy appends the address of its caller; the client itself may have written all before
    that.
    """
    said = [*lines, str(stranger), *chain]
    headers = forwarded(", ".join(said)) if is_one_line else forwarded(*said)
    found = client_of(PROXY, headers, PROXIES)
    assert found is not None
    expected = ip_address(str(stranger))
    assert ip_address(found[0]) == (getattr(expected, "ipv4_mapped", None) or expected)


@given(FORGED)
def test_any_header_gives_an_address(lines: list[str]) -> None:
    found = client_of(PROXY, forwarded(*lines), PROXIES)
    assert found is not None
    ip_address(found[0])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), "10.0.0.1"),
        (("",), "10.0.0.1"),
        (("192.0.2.1",), "192.0.2.1"),
        (("192.0.2.1:4711",), "192.0.2.1"),
        (("[2001:db8:2::1]:4711",), "2001:db8:2::1"),
        (("2001:db8:2::1",), "2001:db8:2::1"),
        (("6.6.6.6, 192.0.2.1, 10.0.0.9",), "192.0.2.1"),
        (("6.6.6.6", "192.0.2.1, 10.0.0.9"), "192.0.2.1"),
        # An entry that is not an address ends the trusted part: the proxy that wrote it is the last
        # known one.
        (("192.0.2.1, unknown, 10.0.0.9",), "10.0.0.9"),
        (("unknown",), "10.0.0.1"),
        (("10.0.0.8, 10.0.0.9",), "10.0.0.8"),
    ],
)
def test_the_forms_of_common_proxies_are_read(lines: tuple[str, ...], expected: str) -> None:
    found = client_of(PROXY, forwarded(*lines), PROXIES)
    assert found is not None
    assert found[0] == expected


def test_a_connection_without_an_address_has_none() -> None:
    assert client_of(None, forwarded("192.0.2.1"), PROXIES) is None


def test_networks_are_read_strictly() -> None:
    assert networks_of(" 10.0.0.0/8 ,::1/128,") == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert networks_of("") == ()
    for text in ("10.0.0.1/8", "proxy.example.com", "10.0.0.0/33"):
        with pytest.raises(ValueError, match=r"\S"):
            networks_of(text)
