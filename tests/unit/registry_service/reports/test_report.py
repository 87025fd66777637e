"""A report's URL means the broker that was told, however a client writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mooring.registry.v1 import reports_pb2 as pb

from broker_service.settings import url_of
from chassis.errors import InvalidInput
from registry_service.reports.report import PORTS, Address, address_of, read_report

RIGHT = {
    "uuid": "one",
    "device_api_key": "test-api-key",
    "state": "failed",
    "broker": "mqtt://h:1883",
}


@given(
    st.sampled_from(sorted(PORTS)),
    st.sampled_from(["h", "mqtt.example.com", "192.0.2.1", "2001:db8::1"]),
    st.integers(1, 65_535),
    st.sampled_from(["", "/mqtt", "/a/b"]),
)
def test_the_url_of_an_answer_is_understood(protocol: str, host: str, port: int, path: str) -> None:
    expected = Address(protocol, host, port, path or "/")
    assert address_of(url_of(protocol, host, port, path)) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("MQTTS://MQTT.Example.com", Address("mqtts", "mqtt.example.com", 8883, "/")),
        ("mqtt://h", Address("mqtt", "h", 1883, "/")),
        ("mqtt://h:1883/", Address("mqtt", "h", 1883, "/")),
        ("wss://h/mqtt", Address("wss", "h", 443, "/mqtt")),
        ("mqtt://user:password@h:1", Address("mqtt", "h", 1, "/")),
        ("http://h", None),
        ("h:1883", None),
        ("mqtt://", None),
        ("mqtt://h:99999", None),
        ("mqtt://h:port", None),
        ("mqtt://[::1", None),
        ("💥", None),
    ],
)
def test_how_clients_write_urls(url: str, expected: Address | None) -> None:
    assert address_of(url) == expected


@given(st.text())
def test_no_text_is_an_error(url: str) -> None:
    address_of(url)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("state", value) for value in ("", "up", "Connected")),
        *(("broker", value) for value in ("", "x" * 513, "mqtt://h\0")),
        *(("error", value) for value in ("x" * 257, "a\nb")),
        *(("generation", value) for value in ("x" * 65, "\x7f")),
        *(("uuid", value) for value in ("", "a/b")),
        *(("device_api_key", value) for value in ("", "x" * 513)),
    ],
)
def test_a_wrong_value_is_named(field: str, value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_report(pb.ConnectionReport(**{**RIGHT, field: value}))
    assert refused.value.field == field


def test_a_connection_has_no_error() -> None:
    found = read_report(pb.ConnectionReport(**{**RIGHT, "state": "connected", "error": "none"}))
    assert (found.state, found.error) == ("connected", "")
