"""JSON bodies: read as their type or refused, and then checked by the service behind."""

import json
from collections.abc import Callable
from dataclasses import asdict

import msgspec
from litestar.exceptions import ClientException

from broker_service.brokers.servicer import _named, _new
from broker_service.settings import Settings, check, url_of
from chassis.errors import MooringError
from gateway.administration.broker_types import BrokerChange, NewBroker, fields_of
from gateway.administration.fields import mask, named
from gateway.bodies import decode
from gateway.device_routes import DECODER, _registration
from gateway.problems import of_error, rendered
from registry_service.provisioning.request import read_registration
from tests.fuzz.given import chosen
from tests.fuzz.targets import rows

DEVICE = {
    "uuid": "test-device-123",
    "deviceName": "n",
    "deviceType": "t",
    "deviceApiKey": "x" * 12,
    "applicationId": "a",
    "macAddress": "00:11:22:33:44:55",
    "osVersion": None,
    "region": "r",
    "location": {"latitude": 1.5, "longitude": -2},
}
BROKER = asdict(Settings(name="b", host="mqtt.example.com", port=1883)) | {"use_tls": None}
SEEDS = (
    b"\0" + json.dumps(DEVICE).encode(),
    b"\1" + json.dumps(BROKER).encode(),
    *(b"\1" + text.rstrip() for text in rows.BROKERS),
    b'\2{"host": null, "port": 1, "protocol": "wss", "path": "/a%20", "labels": null}',
    b'\2{"ca_cert": "x", "ca_certificate_id": 1, "password": null, "use_tls": true}',
    b'\2{"labels": {"a.b/c": "d", "": ""}, "name": "\\ud83d\\ude00", "keep_alive": 65535}',
)
WORDS = (
    *rows.WORDS,
    *(b'"deviceApiKey":', b'"deviceName":', b'"location":{', b'"port":', b'"path":', b'"name":'),
    *(b'"management_url":', b"xn--", b"[::1]", b"https://", b'"username":', b'"keep_alive":'),
)
BROKER_DECODER = msgspec.json.Decoder(NewBroker)
CHANGE_DECODER = msgspec.json.Decoder(BrokerChange)


def _device(body: bytes) -> None:
    found = read_registration(_registration("key", decode(DECODER, body), "192.0.2.1"))
    assert found.device_api_key.isascii()
    assert len(found.uuid) <= 64


def _broker(body: bytes) -> None:
    columns, _, _ = _new(fields_of(named(decode(BROKER_DECODER, body))))
    url_of(columns["protocol"], columns["host"], columns["port"], columns["path"] or "").encode()


def _change(body: bytes) -> None:
    values = named(decode(CHANGE_DECODER, body))
    found = _named(fields_of(values), mask(values).paths)
    names = [name for name in asdict(Settings("", "", 0)) if name in found]
    check(Settings(**(BROKER | {name: found[name] for name in names})))


KINDS: tuple[Callable[[bytes], None], ...] = (_device, _broker, _change)


def attempt(data: bytes) -> None:
    read, body = chosen(data, KINDS)
    try:
        read(body)
    except ClientException:
        try:
            json.loads(body)
        except (ValueError, RecursionError):
            return
        # Python's own parser accepts texts that are not JSON, and other encodings.
        assert not _is_json(body)
    except MooringError as error:
        reply = rendered(of_error(error))
        assert reply.status == 422 or reply.status in (401, 404, 409), reply
        json.loads(reply.body)


def _is_json(body: bytes) -> bool:
    try:
        body.removeprefix(rows.MARK).decode()
        msgspec.json.decode(body.removeprefix(rows.MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
