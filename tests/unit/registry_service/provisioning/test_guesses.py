"""The number of wrong device API keys that are checked, in any order of requests."""

import time
from collections import Counter
from ipaddress import IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

from chassis.refusals import Refusals
from registry_service.provisioning import guesses as module
from registry_service.provisioning.guesses import (
    PER_ADDRESS,
    PER_DEVICE,
    PER_DEVICE_AND_ADDRESS,
    PERIOD_S,
    Guesses,
    network_of,
)

DEVICES = st.sampled_from(["d1", "d2", "d3"])
ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::/64", ""])


def guesses() -> Guesses:
    """The counts of a process that has not read its database."""
    pool: Any = AsyncConnectionPool("", open=False)
    engine = create_async_engine("postgresql+psycopg://", pool_pre_ping=False)
    return Guesses(pool, Refusals(engine))


@pytest.fixture(autouse=True)
def _one_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ensures that the test ends in the same period in which it began."""
    monkeypatch.setattr(module, "PERIOD_S", 10**12)


@given(st.lists(st.tuples(DEVICES, ADDRESSES, ADDRESSES), max_size=30), st.integers(1, 40))
def test_no_more_keys_are_checked_than_the_limits_allow(
    asked: list[tuple[str, str, str]], times: int
) -> None:
    counts = guesses()
    looked_at: Counter[tuple[str, str]] = Counter()
    elsewhere: Counter[str] = Counter()
    for uuid, address, proved_from in asked * times:
        if counts.wait_s(uuid, address, proved_from) is not None:
            continue
        counts.note(uuid, address, "DEVICE_UNAUTHENTICATED")
        looked_at[uuid, address] += 1
        if not address or address != proved_from:
            elsewhere[uuid] += 1
    assert all(count <= PER_DEVICE_AND_ADDRESS for count in looked_at.values())
    assert all(count <= PER_DEVICE for count in elsewhere.values())


def test_guesses_from_elsewhere_do_not_keep_a_device_out() -> None:
    counts = guesses()
    for n in range(PER_DEVICE // 10):
        for _ in range(10):
            counts.note("d", f"192.0.2.{n}", "DEVICE_UNAUTHENTICATED")
    assert counts.wait_s("d", "198.51.100.1", "203.0.113.1") is not None
    assert counts.wait_s("d", "203.0.113.1", "203.0.113.1") is None
    assert counts.wait_s("other", "198.51.100.1", "") is None


def test_a_guessing_address_is_refused_except_for_devices_that_authenticated_there() -> None:
    counts = guesses()
    for n in range(PER_ADDRESS):
        assert counts.wait_s(f"d{n}", "192.0.2.1", "") is None
        counts.note(f"d{n}", "192.0.2.1", "DEVICE_UNAUTHENTICATED")
    assert counts.wait_s("another", "192.0.2.1", "") is not None
    assert counts.wait_s("another", "192.0.2.1", "198.51.100.1") is not None
    assert counts.wait_s("neighbour", "192.0.2.1", "192.0.2.1") is None
    assert counts.wait_s("another", "192.0.2.2", "") is None


def test_without_an_address_devices_do_not_keep_each_other_out() -> None:
    counts = guesses()
    for n in range(PER_ADDRESS + 1):
        counts.note(f"d{n}", "", "DEVICE_UNAUTHENTICATED")
    assert counts.wait_s("another", "", "") is None


def test_a_full_memory_does_not_stop_the_counting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_COUNTED", 50)
    counts = guesses()
    for n in range(PER_ADDRESS * 2):
        counts.note(f"d{n}", f"2001:db8:{n:x}::/64", "DEVICE_UNAUTHENTICATED")
    assert counts.wait_s("unseen", "192.0.2.9", "") is not None
    assert counts.wait_s("unseen", "192.0.2.9", "192.0.2.9") is None


def test_the_next_period_begins_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD_S", PERIOD_S)
    now = 1_000 * PERIOD_S + 1.0
    monkeypatch.setattr(time, "time", lambda: now)
    counts = guesses()
    for _ in range(PER_DEVICE_AND_ADDRESS):
        counts.note("d", "192.0.2.1", "DEVICE_UNAUTHENTICATED")
    assert counts.wait_s("d", "192.0.2.1", "") == PERIOD_S - 1
    assert counts.is_watched("d")
    now += PERIOD_S
    assert counts.wait_s("d", "192.0.2.1", "") is None
    assert not counts.is_watched("d")


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_counts_once_in_any_notation(address: Any) -> None:
    mapped = ip_address((0xFFFF << 32) + int(address))
    assert network_of(str(address)) == network_of(str(mapped)) == str(address)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_an_ipv6_host_is_counted_by_its_network(network: int, one: int, other: int) -> None:
    first, second = (IPv6Address((network << 64) + host) for host in (one, other))
    if first.ipv4_mapped is None and second.ipv4_mapped is None:
        assert network_of(str(first)) == network_of(str(second))
        assert network_of(str(first)).endswith("/64")


@given(st.text(max_size=64))
def test_an_invalid_address_is_counted_as_text(text: str) -> None:
    assert network_of(network_of(text)) == network_of(text)
