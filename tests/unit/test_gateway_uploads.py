"""A file is its rows, whatever is wrong with some of them."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.exceptions import HTTPException
from msgspec import Meta, Struct

from chassis.errors import InvalidInput, Unavailable
from gateway.uploads import CSV, MAX_LINE_BYTES, NDJSON, Line, receive


class Row(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    uuid: str
    mqtt_broker_id: Annotated[int, Meta(ge=1)] | None = None
    is_active: bool = True


async def chunks(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


async def lines(content: bytes, media_type: str, *, size: int = 1_000) -> list[Line[Row]]:
    upload = await receive(chunks(content), media_type, Row)
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
    )
)


@given(ROWS, st.integers(1, 5))
async def test_rows_arrive_as_they_were_sent(rows: list[Row], size: int) -> None:
    text = io.StringIO()
    names = ("uuid", "mqtt_broker_id", "is_active")
    writer = csv.writer(text)
    writer.writerow(names)
    written: list[dict[str, Any]] = [{name: getattr(row, name) for name in names} for row in rows]
    writer.writerows(tuple(row.values()) for row in written)
    ndjson = "".join(json.dumps(row) + "\n" for row in written)
    for content, media_type, first in ((text.getvalue(), CSV, 2), (ndjson, NDJSON, 1)):
        found = await lines(content.encode(), media_type, size=size)
        assert found == [Line(number, row) for number, row in enumerate(rows, first)]


@given(st.binary(max_size=200), st.sampled_from([CSV, NDJSON]))
async def test_any_bytes_are_rows_or_faults(content: bytes, media_type: str) -> None:
    header = b"uuid,mqtt_broker_id\n" if media_type == CSV else b""
    for line in await lines(header + content, media_type):
        assert isinstance(line.row, Row | InvalidInput)


async def test_a_line_that_is_wrong_is_told_by_its_number_and_its_neighbours_are_read() -> None:
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
        Line(1, Row(uuid="one")),
        Line(8, Row(uuid="last")),
    ]


async def test_csv_gives_types_and_leaves_out_what_is_empty() -> None:
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
async def test_a_header_that_is_wrong_refuses_the_file(header: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await receive(chunks(header), CSV, Row)
    assert caught.value.field == field


async def test_a_file_has_a_type_and_an_end() -> None:
    with pytest.raises(HTTPException) as refused:
        await receive(chunks(b"{}"), "application/json", Row)
    assert refused.value.status_code == 415
    (await receive(chunks(b"\n" * 5), NDJSON, Row, max_lines=5)).close()
    with pytest.raises(InvalidInput):
        await receive(chunks(b"\n" * 6), NDJSON, Row, max_lines=5)


async def test_a_full_disk_is_said_to_be_one() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"uuid\n"
        raise OSError

    with pytest.raises(Unavailable):
        await receive(failing(), CSV, Row)
