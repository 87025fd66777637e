"""Uploaded files: NDJSON and CSV of devices, brokers, jobs and expected devices.

Each line that is not blank is a row, however the file arrives. The service behind accepts a row
that was read, or refuses it and names the field.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

from litestar.exceptions import HTTPException
from mooring.registry.v1 import jobs_pb2

from broker_service.brokers.servicer import _new
from chassis.errors import InvalidInput, MooringError
from gateway.administration.broker_types import fields_of
from gateway.administration.expected_device_types import Lines, NewExpectedDevice, expected_proto
from gateway.administration.fields import named
from gateway.administration.imports import BROKER_ROWS, DEVICE_ROWS, _device
from gateway.administration.job_lists import ROWS
from gateway.text import utf8_of
from gateway.uploads import CSV, MAX_SUBJECT, NDJSON, Form, receive
from registry_service.administration.devices.importing import read_imported
from registry_service.administration.expected_devices.servicer import _row as expected_row
from registry_service.bulk.jobs.servicer import _row as job_row
from tests.fuzz.given import chosen

MARK = b"\xef\xbb\xbf"
DEVICES = (
    *(b'{"uuid": "a1", "fleet_id": "demo", "latitude": 1.5, "longitude": -2}\n\n{"uuid": 1}\n',),
    *(b'{"uuid": "a", "fleet_id": "f", "mqtt_username": "u", "password_hash": "$2b$"}', b"[]\n{"),
    *(MARK + b'{"uuid": "@1", "fleet_id": "demo", "region": null, "broker": "b"}\r\n',),
    '{"uuid": "@1", "fleet_id": "demo"}\r\n'.encode("utf-16"),
)
DEVICES_CSV = (
    *(b"uuid;fleet_id;device_name\n@1;demo;x\n", b"uuid\tfleet_id\na\tb\n\n;;\n"),
    MARK + b'"uuid","fleet_id","device_name"\n"@1","demo","Ger\xc3\xa4t ""Nord"", 1"\n',
    b"uuid;fleet_id;latitude;longitude\na;b;1,5;-2,5\nc;d;nan;1e400\n",
    b"uuid,fleet_id,mqtt_broker_id\na,b,1_0\nc,d,1.0\ne,f,\n",
)
BROKERS = (
    b'{"name": "b", "host": "h_1", "port": 8883, "protocol": "mqtts", "labels": {"a/b": "c"}}\n',
    (
        b'{"name": "b", "host": "::1", "port": 1, "protocol": "ws", "path": "/m", "use_tls": null,'
        b' "management": "emqx", "management_url": "https://h/", "username": "u", "password": "p"}'
    ),
)
BROKERS_CSV = (b"name,host,port,clean_session,keep_alive\nb,h,1883,true,60\nc,d,x,1,0\n",)
JOBS = (b'{"uuid": "a", "mqtt_broker_id": 3}\n{"uuid": "b", "mqtt_broker_id": null}\n{"uuid": ""}',)
JOBS_CSV = (b"uuid,mqtt_broker_id\na,3\nb,\n,4\nc,-1\n",)
EXPECTED = (
    b'{"uuid": "a", "fleet_id": "f", "location": {"latitude": 1, "longitude": 2}}\n{"uuid": "b"}',
)


def _is_device(row: Any) -> None:
    read_imported(_device(row))


def _is_broker(row: Any) -> None:
    _new(fields_of(named(row)))


def _is_job(row: Any) -> None:
    broker_id = row.mqtt_broker_id if isinstance(row.mqtt_broker_id, int) else None
    sent = jobs_pb2.NewJobRow(line=1, device_uuid=row.uuid, mqtt_broker_id=broker_id)
    stored = job_row(sent, None)
    assert stored["fault"] or stored["uuid"] == row.uuid


KINDS: tuple[tuple[str, Form[Any], Callable[[Any], None]], ...] = tuple(
    (kind, form, taken)
    for form, taken in ((DEVICE_ROWS, _is_device), (BROKER_ROWS, _is_broker), (ROWS, _is_job))
    for kind in (NDJSON, CSV)
)
SEEDS = tuple(
    bytes((index, size % 251)) + text
    for index, texts in enumerate(
        (DEVICES, DEVICES_CSV, BROKERS, BROKERS_CSV, JOBS, JOBS_CSV, EXPECTED)
    )
    for size, text in enumerate(texts)
)
WORDS = (
    *(b"\n", b"\r\n", b"\r", b'""', b'"', b";", b",", b"\t", b"\0", MARK, b"\xff\xfe", b"\xfe\xff"),
    *(b'"uuid":', b'"fleet_id":', b'"latitude":', b'"mqtt_broker_id":', b"null", b"1e999", b"nan"),
    *(b"inf", b"-0", b"2147483648", b'"password_hash":', b'"password_salt":', b'"labels":{'),
    *(b'"management":"rabbitmq"', b'"ca_cert":', b'"protocol":"wss"', b'"host":', b"\\ud800"),
    *(b"uuid", b"fleet_id", b"[" * 1_100, b"\\u0000", b"\xed\xa0\x80", b"1,5", b"true"),
)
LOOP = asyncio.new_event_loop()
# The sizes of the pieces in which a file arrives.
SIZES = (1, 2, 3, 5, 50)


async def _pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def _read(content: bytes, size: int, kind: str, form: Form[Any]) -> list[Any] | str:
    """The lines, or why the file is refused."""
    try:
        upload = await receive(_pieces(content, size), kind, form)
        found = [line async for batch in upload.batches(3) for line in batch]
    except InvalidInput as error:
        return str(error)
    return [
        (line.number, str(line.row) if isinstance(line.row, InvalidInput) else line.row, line)
        for line in found
    ]


def attempt(data: bytes) -> None:
    which, rest = chosen(data, range(len(KINDS) + 1))
    size, content = chosen(rest, SIZES)
    if which == len(KINDS):
        _attempt_expected(content)
        return
    kind, form, taken = KINDS[which]
    found = LOOP.run_until_complete(_read(content, len(content) or 1, kind, form))
    again = LOOP.run_until_complete(_read(content, size, kind, form))
    if isinstance(found, str) or isinstance(again, str):
        assert found == again
        return
    # Compared as text, because NaN does not equal itself.
    assert repr([one[:2] for one in found]) == repr([one[:2] for one in again])
    texts = utf8_of(content).split(b"\n")[1 if kind == CSV else 0 :]
    begun = 2 if kind == CSV else 1
    assert [one[0] for one in found] == [
        number for number, text in enumerate(texts, begun) if text.strip()
    ]
    for _, _, line in found:
        assert len(line.subject) <= MAX_SUBJECT or not isinstance(line.row, InvalidInput)
        line.subject.encode()
        if isinstance(line.row, InvalidInput):
            f"{line.row.field}{line.row.message}".encode()
            continue
        try:
            taken(line.row)
        except MooringError as error:
            f"{error.field}{error.message}".encode()


def _attempt_expected(content: bytes) -> None:
    kind: Any = Lines
    reader = kind(SimpleNamespace(headers={"content-type": NDJSON}))
    try:
        found: list[NewExpectedDevice] = reader.decode_bytes(content)
    except (InvalidInput, HTTPException):
        return
    assert len(found) == sum(bool(text.strip()) for text in utf8_of(content).split(b"\n"))
    for index, row in enumerate(found):
        try:
            expected_row(index, expected_proto(row))
        except InvalidInput as error:
            if not error.field.startswith(f"expected_devices[{index}]."):
                raise AssertionError(f"the field {error.field} has no place") from error
