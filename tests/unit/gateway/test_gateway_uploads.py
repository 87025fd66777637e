"""All rows of an uploaded file are read, even if some are invalid."""

import codecs
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.exceptions import HTTPException
from msgspec import Meta, Struct

from chassis.errors import InvalidInput, Overloaded, Unavailable
from gateway import uploads
from gateway.spool import Spool
from gateway.uploads import CSV, MAX_LINE_BYTES, MAX_SUBJECT, NDJSON, Form, Line, receive


class Row(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    uuid: str
    mqtt_broker_id: Annotated[int, Meta(ge=1)] | None = None
    is_active: bool = True


def not_half(row: Row) -> None:
    if row.mqtt_broker_id == 13 and not row.is_active:
        raise InvalidInput("is missing", field="is_active")


FORM = Form(Row, "uuid", not_half)


async def chunks(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


async def lines(content: bytes, media_type: str, *, size: int = 1_000) -> list[Line[Row]]:
    upload = await receive(chunks(content), media_type, FORM)
    return [line async for batch in upload.batches(size) for line in batch]


def faults(found: list[Line[Row]]) -> dict[int, tuple[str, str]]:
    return {
        line.number: (line.row.field, line.row.message)
        for line in found
        if isinstance(line.row, InvalidInput)
    }


ROWS = st.lists(
    st.builds(
        Row,
        uuid=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20),
        mqtt_broker_id=st.none() | st.integers(1, 2**31),
        is_active=st.booleans(),
    ).filter(lambda row: row.mqtt_broker_id != 13 or row.is_active)
)


@given(ROWS, st.integers(1, 5))
async def test_rows_arrive_unchanged(rows: list[Row], size: int) -> None:
    text = io.StringIO()
    names = ("uuid", "mqtt_broker_id", "is_active")
    writer = csv.writer(text)
    writer.writerow(names)
    written: list[dict[str, Any]] = [{name: getattr(row, name) for name in names} for row in rows]
    writer.writerows(tuple(row.values()) for row in written)
    ndjson = "".join(json.dumps(row) + "\n" for row in written)
    for content, media_type, first in ((text.getvalue(), CSV, 2), (ndjson, NDJSON, 1)):
        found = await lines(content.encode(), media_type, size=size)
        assert found == [Line(number, row, row.uuid) for number, row in enumerate(rows, first)]


@given(st.binary(max_size=200), st.sampled_from([CSV, NDJSON]))
async def test_any_bytes_are_rows_or_faults(content: bytes, media_type: str) -> None:
    header = b"uuid,mqtt_broker_id\n" if media_type == CSV else b""
    for line in await lines(header + content, media_type):
        assert isinstance(line.row, Row | InvalidInput)


async def test_an_invalid_line_is_reported_by_number_and_the_others_are_read() -> None:
    content = b"\n".join(
        [
            b'{"uuid": "one"}',
            b"",
            b'{"uuid": "two"',
            b'{"uuid": "\xff"}',
            b'{"uuid": 3}',
            b'{"uuid": "x", "nothing": 1}',
            b'{"uuid": "' + b"x" * MAX_LINE_BYTES + b'"}',
            b'{"uuid": "last"}\r',
        ]
    )
    found = await lines(content, NDJSON)
    assert faults(found) == {
        3: ("", "is not JSON"),
        4: ("", "is not JSON"),
        5: ("uuid", "Expected `str`, got `int`"),
        6: ("nothing", "is not known here"),
        7: ("", f"is longer than {MAX_LINE_BYTES} bytes"),
    }
    assert [line for line in found if line.number in (1, 8)] == [
        Line(1, Row(uuid="one"), "one"),
        Line(8, Row(uuid="last"), "last"),
    ]


async def test_csv_has_types_and_leaves_out_empty_cells() -> None:
    content = (
        b"\xef\xbb\xbfuuid,mqtt_broker_id\r\n"
        b'"a,""b""",7\r\none,\r\ntwo,x\r\nthree\r\n,3\r\n"four\r\nsix,0\r\n'
    )
    found = await lines(content, "text/csv; charset=utf-8")
    assert [line.row for line in found if isinstance(line.row, Row)] == [
        Row(uuid='a,"b"', mqtt_broker_id=7),
        Row(uuid="one"),
    ]
    assert faults(found) == {
        4: ("mqtt_broker_id", "Expected `int | null`, got `str`"),
        5: ("", "has 1 cells instead of 2"),
        6: ("uuid", "is required"),
        7: ("", "is not a line of CSV in UTF-8"),
        8: ("mqtt_broker_id", "Expected `int` >= 1"),
    }


@pytest.mark.parametrize(
    ("header", "field"),
    [
        (b"", "uuid"),
        (b"\n", "uuid"),
        (b"mqtt_broker_id\n", "uuid"),
        (b"uuid,uuid\n", "uuid"),
        (b"uuid,password\n", "password"),
        (b"uuid," + b"x" * 1_000, "x" * 100),
        (b"uuid," + b"x" * MAX_LINE_BYTES, "uuid"),
        (b'"uuid\n', ""),
        (b"\xff\n", ""),
    ],
)
async def test_an_invalid_header_refuses_the_file(header: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await receive(chunks(header), CSV, FORM)
    assert caught.value.field == field


async def test_a_file_has_a_known_content_type_and_a_maximum_size() -> None:
    with pytest.raises(HTTPException) as refused:
        await receive(chunks(b"{}"), "application/json", FORM)
    assert refused.value.status_code == 415
    (await receive(chunks(b"\n" * 5), NDJSON, FORM, max_lines=5)).close()
    with pytest.raises(InvalidInput):
        await receive(chunks(b"\n" * 6), NDJSON, FORM, max_lines=5)


async def test_a_full_disk_is_reported() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"uuid\n"
        raise OSError

    with pytest.raises(Unavailable):
        await receive(failing(), CSV, FORM)


FORMS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda text: text.encode(),
    "mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16, little": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16, big": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}
ENDS = ("\n", "\r\n")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ENDS)
@given(ROWS, st.booleans(), st.booleans(), st.sampled_from(",;\t"))
async def test_no_row_is_lost_in_any_form_of_a_file(
    form: str, end: str, rows: list[Row], has_last_end: bool, has_blanks: bool, separator: str
) -> None:
    table = io.StringIO()
    writer = csv.writer(table, delimiter=separator, lineterminator=end)
    writer.writerow(["uuid", "mqtt_broker_id", "is_active"])
    writer.writerows((row.uuid, row.mqtt_broker_id, row.is_active) for row in rows)
    ndjson = "".join(
        json.dumps(
            {"uuid": row.uuid, "mqtt_broker_id": row.mqtt_broker_id, "is_active": row.is_active}
        )
        + end
        for row in rows
    )
    for text, media_type in ((table.getvalue(), CSV), (ndjson, NDJSON)):
        written = text if has_last_end else text.removesuffix(end)
        if has_blanks:
            head, _, rest = written.partition(end)
            written = f"{head}{end}{end}{rest}" if rest else written
        found = await lines(FORMS[form](written), media_type)
        assert [line.row for line in found] == rows, (media_type, written)


@pytest.mark.parametrize("encoding", ["utf-32", "utf-16"])
async def test_another_encoding_is_refused_with_advice(encoding: str) -> None:
    content = '{"uuid": "x"}\n'.encode(encoding)
    with pytest.raises(InvalidInput, match="UTF-") as refused:
        # The part ends in the middle of a letter.
        await receive(chunks(content[:-1]), NDJSON, FORM)
    assert refused.value.field == ""


class Place(Struct):
    name: str
    latitude: float | None = None


async def test_a_decimal_comma_is_read_if_commas_do_not_separate() -> None:
    content = b"name;latitude\r\n1,5;52,5\r\nx;-1\r\ny;1,2,3\r\n"
    upload = await receive(chunks(content), CSV, Form(Place, "name"))
    found = [line.row async for batch in upload.batches() for line in batch]
    assert found[:2] == [Place("1,5", 52.5), Place("x", -1.0)]
    assert isinstance(found[2], InvalidInput)


async def test_uploads_are_limited_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(max_uploads=2, max_bytes=100)
    monkeypatch.setattr(uploads, "SPOOL", spool)
    first, second = [await receive(chunks(b"\n" * 40), NDJSON, FORM) for _ in range(2)]
    with pytest.raises(Overloaded) as refused:
        await receive(chunks(b"\n"), NDJSON, FORM)
    assert refused.value.retry_after_s >= 1
    first.close()
    with pytest.raises(Overloaded):
        await receive(chunks(b"\n" * 61), NDJSON, FORM)
    assert (spool.uploads, spool.bytes) == (1, 40)
    assert [batch async for batch in second.batches()] == []
    assert (spool.uploads, spool.bytes) == (0, 0)

    async def broken() -> AsyncIterator[bytes]:
        yield b"\n\n\n\n\n"
        raise ConnectionResetError

    with pytest.raises(Unavailable):
        await receive(broken(), NDJSON, FORM)
    assert (spool.uploads, spool.bytes) == (0, 0)


async def test_uploads_leave_room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SPOOL", Spool(free_bytes=1 << 62))
    (await receive(chunks(b"\n" * 5), NDJSON, FORM, bytes_in_memory=10)).close()
    with pytest.raises(Unavailable):
        await receive(chunks(b"\n" * 50), NDJSON, FORM, bytes_in_memory=10)


def test_an_upload_on_the_disk_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Spool(free_bytes=0).open(10) as file:
        file.write(b"x" * 1_000)
        file.rollover()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("media_type", "text", "subject"),
    [
        (CSV, "uuid,mqtt_broker_id\nd1,0\n", "d1"),
        (CSV, "mqtt_broker_id,uuid\nx,d1\n", "d1"),
        (CSV, "uuid,mqtt_broker_id\nd1\n", "d1"),
        (CSV, "uuid,mqtt_broker_id\nd1,1,2\n", "d1"),
        (CSV, "uuid,mqtt_broker_id\n,1\n", ""),
        (CSV, 'uuid,mqtt_broker_id\n"d1,1\n', ""),
        (CSV, "uuid,mqtt_broker_id,is_active\nd1,13,false\n", "d1"),
        (NDJSON, '{"uuid": "d1", "mqtt_broker_id": 0}', "d1"),
        (NDJSON, '{"uuid": "d1", "unknown": 1}', "d1"),
        (NDJSON, '{"uuid": "d1", "mqtt_broker_id": 13, "is_active": false}', "d1"),
        (NDJSON, '{"uuid": 7}', ""),
        (NDJSON, '["d1"]', ""),
        (NDJSON, '{"uuid": "d1"', ""),
        (NDJSON, "[" * 5_000, ""),
        (NDJSON, '{"uuid": "' + "d" * 300 + '", "x": 1}', "d" * MAX_SUBJECT),
    ],
)
async def test_a_refused_row_names_its_device(media_type: str, text: str, subject: str) -> None:
    [line] = await lines(text.encode(), media_type)
    assert isinstance(line.row, InvalidInput)
    assert line.subject == subject
