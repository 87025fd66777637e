"""JSON is parsed strictly, and an error names the field as the client sent it."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.exceptions import ClientException

from chassis.errors import InvalidInput
from gateway.administration.broker_types import BrokerChange, NewBroker
from gateway.administration.fleets import FleetChange
from gateway.administration.provisioning_key_types import NewProvisioningKey
from gateway.bodies import decode, is_json
from gateway.device_routes import NewDevice

DEVICE = msgspec.json.Decoder(NewDevice)
WHOLE = {"uuid": "a", "deviceName": "b", "deviceType": "c", "deviceApiKey": "d"}


def body(**changes: object) -> bytes:
    return msgspec.json.encode(WHOLE | changes)


@pytest.mark.parametrize(
    "malformed",
    [
        b"{",
        b"nothing",
        b'{"uuid": "a"',
        b'{"uuid": 1',
        b'{"uuid": "\xff"}',
        b'{"ignored": "\xff"}',
        b'{"uuid": "\\ud800"}',
        b'{"location": {"latitude": NaN, "longitude": 0}}',
        b'{"location": {"latitude": Infinity, "longitude": 0}}',
        b'{"ignored": ' + b"[" * 30_000,
        b"[" * 30_000,
        body() + b"x",
    ],
)
def test_a_body_that_is_not_json_is_malformed(malformed: bytes) -> None:
    with pytest.raises(ClientException) as caught:
        decode(DEVICE, malformed)
    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (b"[]", ""),
        (b"null", ""),
        (b"{}", "uuid"),
        (body(uuid=1), "uuid"),
        (body(deviceName=None), "deviceName"),
        (body(deviceName=["a"]), "deviceName"),
        (body(region=1), "region"),
        (body(location=[1, 2]), "location"),
        (body(location={}), "location.latitude"),
        (body(location={"latitude": "1", "longitude": 2}), "location.latitude"),
        (body(location={"latitude": True, "longitude": 2}), "location.latitude"),
        (b'{"location": {"latitude": 1e999, "longitude": 2}}', "location.latitude"),
        (b'{"location": {"latitude": ' + b"9" * 5_000 + b', "longitude": 2}}', "location.latitude"),
    ],
)
def test_an_invalid_value_names_the_field_as_it_was_sent(wrong: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(DEVICE, wrong)
    assert caught.value.field == field


def test_devices_may_send_more_fields_and_null() -> None:
    device = decode(DEVICE, body(firmware={"any": [1]}, region=None, location=None))
    assert device.uuid == "a"
    assert device.region is None


@pytest.mark.parametrize("kind", [NewBroker, BrokerChange, FleetChange, NewProvisioningKey])
def test_administrators_get_an_error_for_an_unknown_field(kind: type[msgspec.Struct]) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(msgspec.json.Decoder(kind), b'{"mqtt_broker_idd": 1}')
    assert caught.value.field == "mqtt_broker_idd"


@pytest.mark.parametrize("port", [b"0", b"65536", b"-1", b"1.0", b'"1"', b"true", b"9" * 40])
def test_a_number_is_a_number_of_the_right_size(port: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(msgspec.json.Decoder(BrokerChange), b'{"port": ' + port + b"}")
    assert caught.value.field == "port"


@pytest.mark.parametrize("moment", ["2030-01-01T00:00:00", "2030-13-01T00:00:00Z", "tomorrow", 5])
def test_a_time_needs_a_zone(moment: object) -> None:
    sent = msgspec.json.encode({"fleet_id": "demo", "expires_at": moment})
    with pytest.raises(InvalidInput) as caught:
        decode(msgspec.json.Decoder(NewProvisioningKey), sent)
    assert caught.value.field == "expires_at"


def test_a_long_field_name_is_not_sent_back_whole() -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(msgspec.json.Decoder(BrokerChange), msgspec.json.encode({"x" * 10_000: 1}))
    assert len(caught.value.field) == 100


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_raise_another_error(anything: bytes) -> None:
    with contextlib.suppress(InvalidInput, ClientException):
        decode(DEVICE, anything)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/json ;x", True),
        ("", False),
        ("text/plain", False),
        ("application/jsonp", False),
        ("application/problem+json", False),
        ("text/plain, application/json", False),
    ],
)
def test_only_a_json_content_type_is_accepted(content_type: str, expected: bool) -> None:
    assert is_json(content_type) is expected


def test_a_byte_order_mark_is_ignored() -> None:
    """RFC 8259, section 8.1: a parser may ignore it, and PowerShell writes it."""
    assert decode(DEVICE, b"\xef\xbb\xbf" + body()) == decode(DEVICE, body())
