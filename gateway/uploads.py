"""Files of many rows: NDJSON, or CSV with a header line, in bounded memory.

All of a file is received before its first row is read. So what is wrong with the file as a whole
refuses it before anything has happened, and an answer can be as long as the file: a client that
sends everything before it reads anything would else wait for us as we for it.
"""

import asyncio
import csv
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

import msgspec
import msgspec.inspect
from litestar.exceptions import ClientException, HTTPException
from msgspec.structs import fields

from chassis.errors import InvalidInput, Unavailable
from gateway.bodies import decode, named
from gateway.spool import Kept, Spool
from gateway.text import Utf8

NDJSON = "application/x-ndjson"
CSV = "text/csv"

MAX_BYTES = 512 * 1024 * 1024
# More is kept on disk.
MAX_BYTES_IN_MEMORY = 1024 * 1024
# Also those that are blank or wrong.
MAX_LINES = 2_000_000
# A row with a bundle of certificates fits.
MAX_LINE_BYTES = 128 * 1024
ROWS_IN_BATCH = 1_000
# As many are read before others get their turn.
LINES_IN_TURN = 100
# What a batch is made of; a message of gRPC has room for it.
MAX_BATCH_BYTES = 8 * 1024 * 1024

# Excel's separator depends on the language of the computer; what is not in the header is none.
SEPARATORS = (",", ";", "\t")
# As people write it whose separator is a semicolon.
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")

SPOOL = Spool()

Row = TypeVar("Row", bound=msgspec.Struct)


class Line(NamedTuple, Generic[Row]):
    """A line of the file, by its number from 1, and what it holds or what is wrong with it."""

    number: int
    row: Row | InvalidInput


class Upload(Generic[Row]):
    """A file that has been received; its rows are read once."""

    def __init__(self, file: Kept, read: Callable[[bytes], Row], begun: int) -> None:
        """`read` makes a row of a line or raises; `begun` lines of `file` have been read."""
        self._file = file
        self._read = read
        self._begun = begun

    async def batches(self, size: int = ROWS_IN_BATCH) -> AsyncIterator[list[Line[Row]]]:
        """Up to `size` lines at a time, fewer long ones, in order; without those that are blank."""
        with self._file as file:
            batch: list[Line[Row]] = []
            length = 0
            for number, text in enumerate(_lines(file), self._begun + 1):
                if text is None or text.strip():
                    batch.append(Line(number, self._row(text)))
                    length += len(text or b"")
                if len(batch) == size or length >= MAX_BATCH_BYTES:
                    yield batch
                    batch, length = [], 0
                if number % LINES_IN_TURN == 0:
                    # Whoever asks for something small is not kept waiting by a large file.
                    await asyncio.sleep(0)
            if batch:
                yield batch

    def close(self) -> None:
        """For one whose rows nobody reads."""
        self._file.close()

    def _row(self, text: bytes | None) -> Row | InvalidInput:
        if text is None:
            return InvalidInput(f"is longer than {MAX_LINE_BYTES} bytes")
        try:
            return self._read(text)
        except InvalidInput as error:
            return error


async def receive(
    stream: AsyncIterable[bytes],
    content_type: str,
    kind: type[Row],
    *,
    max_lines: int = MAX_LINES,
    bytes_in_memory: int = MAX_BYTES_IN_MEMORY,
) -> Upload[Row]:
    """Receives a file of which each row is a `kind`; CSV has a column for each field it names.

    What is beyond `bytes_in_memory` lies on disk, in a file without a name. The text may be in
    UTF-8 or, with a byte order mark, in UTF-16; the cells of CSV are separated by commas,
    semicolons or tabs, whichever the header has.

    Raises `HTTPException` (415), what `stream` raises, `InvalidInput` for a file with more than
    `max_lines` lines, in another encoding or with a header that is wrong, `Overloaded` where too
    many files are being received, and `Unavailable` where there is no room.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in (NDJSON, CSV):
        raise HTTPException(status_code=415)
    file = await _received(stream, max_lines, bytes_in_memory)
    try:
        if media_type == NDJSON:
            return Upload(file, _json_reader(kind), begun=0)
        return Upload(file, _csv_reader(kind, next(_lines(file), b"")), begun=1)
    except BaseException:
        file.close()
        raise


async def _received(stream: AsyncIterable[bytes], max_lines: int, bytes_in_memory: int) -> Kept:
    file = SPOOL.open(bytes_in_memory)
    utf8, ends = Utf8(), 0
    try:
        async for chunk in stream:
            text = utf8.feed(chunk)
            ends += text.count(b"\n")
            if ends > max_lines:
                raise InvalidInput(f"has more than {max_lines} lines")
            file.write(text)
        file.write(utf8.feed(b"", is_last=True))
        file.seek(0)
    except OSError:
        file.close()
        raise Unavailable("there is no room to keep the file") from None
    except BaseException:
        file.close()
        raise
    return file


def _lines(file: Kept) -> Iterator[bytes | None]:
    """Each line with its end; None for one that is too long, of which the rest is passed over."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield None


def _json_reader(kind: type[Row]) -> Callable[[bytes], Row]:
    decoder = msgspec.json.Decoder(kind)

    def read(line: bytes) -> Row:
        try:
            return decode(decoder, line)
        except ClientException:
            raise InvalidInput("is not JSON") from None

    return read


def _csv_reader(kind: type[Row], header: bytes | None) -> Callable[[bytes], Row]:
    """A cell that is empty is not given. Raises `InvalidInput` for a header that is wrong."""
    separator = next((one for one in SEPARATORS if one.encode() in (header or b"")), ",")
    columns = [] if header is None else _cells(header, separator)
    known = {field.name: field for field in fields(kind)}
    for column in columns:
        if column not in known:
            raise InvalidInput("is a column that is not known here", field=column[:100])
        if columns.count(column) > 1:
            raise InvalidInput("is the name of two columns", field=column)
    for name, field in known.items():
        if name not in columns and field.required:
            raise InvalidInput("is a column that is required", field=name)

    numbers = _numbers(kind) if separator != "," else frozenset()

    def read(line: bytes) -> Row:
        cells = _cells(line, separator)
        if len(cells) != len(columns):
            raise InvalidInput(f"has {len(cells)} cells instead of {len(columns)}")
        given = {column: cell for column, cell in zip(columns, cells, strict=True) if cell}
        for column in numbers & given.keys():
            if DECIMAL_COMMA.fullmatch(given[column]):
                given[column] = given[column].replace(",", ".")
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise named(error) from None

    return read


def _numbers(kind: type[msgspec.Struct]) -> frozenset[str]:
    """The fields that may have decimal places."""
    found = msgspec.inspect.type_info(kind)
    described = found.fields if isinstance(found, msgspec.inspect.StructType) else ()
    number = msgspec.inspect.FloatType
    return frozenset(
        field.name
        for field in described
        if isinstance(field.type, number)
        or (
            isinstance(field.type, msgspec.inspect.UnionType)
            and any(isinstance(one, number) for one in field.type.types)
        )
    )


def _cells(line: bytes, separator: str) -> list[str]:
    """RFC 4180, but that a row is a line: no cell holds the end of one. Raises `InvalidInput`."""
    try:
        rows = list(csv.reader([line.decode().rstrip("\r\n")], delimiter=separator, strict=True))
    except (csv.Error, UnicodeDecodeError):
        raise InvalidInput("is not a line of CSV in UTF-8") from None
    return rows[0] if rows else []
