"""Randomly damaged uploads are read or refused, in bounded time."""

import ssl
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_service.certificates.reading import CA, CLIENT, read_ca, read_client
from broker_service.certificates.verification import warnings_of
from chassis.errors import InvalidInput
from gateway.administration.imports import BROKER_ROWS, DEVICE_ROWS
from gateway.administration.job_lists import ROWS
from gateway.uploads import CSV, MAX_SUBJECT, NDJSON, Form, receive
from tests.unit.broker_service.certificates.test_certificate_verification import Made, Plan, made

# Each takes less than half a minute, also with other tests beside it.
FUZZED = settings(
    max_examples=1_000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
SOON_S = 2.0

NAMES = (x509.DNSName("example.com"),)
ROOT = made("root", Plan(path_length=1, permitted=NAMES, usage="both"))
MIDDLE = made("middle", Plan(usage="client"), ROOT)
DEVICE = made("device", Plan(usage="client", digital_signature=True), MIDDLE, is_ca=False)

EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from("ridt"), st.binary(max_size=4)),
    max_size=5,
)


def edited(content: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    """The bytes with some replaced, inserted, deleted or repeated."""
    for place, kind, piece in edits:
        at = int(place * (len(content) + 1))
        if kind == "r":
            content = content[:at] + piece + content[at + len(piece) :]
        elif kind == "i":
            content = content[:at] + piece + content[at:]
        elif kind == "d":
            content = content[:at] + content[at + 1 + len(piece) :]
        else:
            content = content[:at] + content[at // 2 :]
    return content


def pem_of(der: bytes) -> str:
    body = ssl.DER_cert_to_PEM_cert(der)
    return body if body.endswith("\n") else body + "\n"


def bundle_of(parts: list[tuple[Made, list[tuple[float, str, bytes]]]]) -> str:
    ders = [(each.certificate.public_bytes(Encoding.DER), edits) for each, edits in parts]
    return "".join(pem_of(edited(der, edits)) for der, edits in ders)


def read_within_time(read: Callable[[], Any], kind: str) -> None:
    """The result can be used and read again; errors other than refusals are raised."""
    begun = time.process_time()
    try:
        found = read()
    except InvalidInput:
        pass
    else:
        warnings_of(kind, found.pem, datetime.now(UTC), host="mqtt.example.com")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found.pem)
    assert time.process_time() - begun < SOON_S


CERTIFICATES = st.lists(
    st.tuples(st.sampled_from([ROOT, MIDDLE, DEVICE]), EDITS | st.just([])), min_size=1, max_size=4
)


@pytest.mark.heavy
@FUZZED
@given(parts=CERTIFICATES, edits=EDITS | st.just([]))
def test_damaged_bundles_are_read_or_refused(parts: Any, edits: Any) -> None:
    text = edited(bundle_of(parts).encode(), edits).decode("utf-8", "surrogateescape")
    read_within_time(lambda: read_ca(text), CA)


@pytest.mark.heavy
@FUZZED
@given(parts=CERTIFICATES, edits=EDITS | st.just([]), key_edits=EDITS | st.just([]))
def test_damaged_chains_and_keys_are_read_or_refused(
    parts: Any, edits: Any, key_edits: Any
) -> None:
    text = edited(bundle_of([(DEVICE, []), *parts]).encode(), edits).decode("latin-1")
    key = edited(DEVICE.key_pem.encode(), key_edits).decode("latin-1")
    read_within_time(lambda: read_client(text, key), CLIENT)


async def chunks(content: bytes, size: int) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


FILES: list[tuple[str, Form[Any], bytes]] = [
    (CSV, DEVICE_ROWS, b'uuid,fleet_id,latitude,longitude\r\n"a","d",1.5,2\r\nb,d,,\r\n'),
    (CSV, DEVICE_ROWS, b"\xef\xbb\xbfuuid;fleet_id;latitude;longitude\n\na;d;1,5;2\n"),
    (CSV, BROKER_ROWS, b"name\thost\tport\nb\th\t1883\n"),
    (CSV, ROWS, "uuid,mqtt_broker_id\nx,1\n".encode("utf-16")),
    (NDJSON, DEVICE_ROWS, b'{"uuid": "a", "fleet_id": "d", "latitude": 1}\n{"uuid": null}\n'),
    (NDJSON, BROKER_ROWS, b'{"name": "b", "host": "h", "port": 1, "labels": {"a": "b"}}\n'),
    (NDJSON, ROWS, b'\xef\xbb\xbf{"uuid": "a", "mqtt_broker_id": null}\r\n[[[\n'),
]
SPECIAL = st.sampled_from([b'"', b",", b";", b"\n", b"\r", b"\0", b"\xff\xfe", b"[", b"{", b"\\u"])


@pytest.mark.heavy
@FUZZED
@given(
    file=st.sampled_from(FILES),
    edits=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True),
            st.sampled_from("ridt"),
            SPECIAL | st.binary(max_size=3),
        ),
        max_size=6,
    ),
    size=st.integers(1, 64),
)
async def test_damaged_files_are_rows_or_refused(file: Any, edits: Any, size: int) -> None:
    media_type, form, content = file
    begun = time.process_time()
    try:
        upload = await receive(chunks(edited(content, edits), size), media_type, form)
    except InvalidInput:
        return
    numbers = []
    async for batch in upload.batches(3):
        for line in batch:
            numbers.append(line.number)
            assert isinstance(line.row, form.kind | InvalidInput)
            if isinstance(line.row, InvalidInput):
                assert len(line.subject) <= MAX_SUBJECT
            else:
                assert line.subject == getattr(line.row, form.subject)
    assert numbers == sorted(set(numbers))
    assert time.process_time() - begun < SOON_S
