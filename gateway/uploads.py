"""Files of many rows: NDJSON, or CSV with a header line, in bounded memory.

All of a file is received before its first row is read. So a file that is wrong as a whole is
refused before anything is changed. It also prevents a deadlock: the answer may be as long as the
file, and many clients send the whole file before they read the answer.
"""

import asyncio
import csv
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

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
# Larger files are written to disk.
MAX_BYTES_IN_MEMORY = 1024 * 1024
# The most lines of a file, including lines that are blank or wrong.
MAX_LINES = 2_000_000
# The longest line, which has room for a bundle of certificates.
MAX_LINE_BYTES = 128 * 1024
ROWS_IN_BATCH = 1_000
# How many characters of a refused row's subject are shown.
MAX_SUBJECT = 255
# After this many lines, other tasks of the event loop run.
LINES_IN_TURN = 100
# The size of a batch, which fits into a gRPC message.
MAX_BATCH_BYTES = 8 * 1024 * 1024

# Excel's separator depends on the computer's language. The header shows which one a file uses.
SEPARATORS = (",", ";", "\t")
# The form of decimal numbers in files whose separator is a semicolon.
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")

SPOOL = Spool()

Row = TypeVar("Row", bound=msgspec.Struct)


class Line(NamedTuple, Generic[Row]):
    """A line of the file: its number, from 1, and its row or the error in it.

    `subject` names the row, for example by a uuid; empty if it cannot be read.
    """

    number: int
    row: Row | InvalidInput
    subject: str


class Form(NamedTuple, Generic[Row]):
    """How rows are read: `kind` is their type, and `subject` is the field that names a row.

    `check` raises `InvalidInput` for rules that the type does not have.
    """

    kind: type[Row]
    subject: str
    check: Callable[[Row], None] = lambda _: None


class Upload(Generic[Row]):
    """A file that has been received; its rows are read once."""

    def __init__(self, file: Kept, form: Form[Row], reader: "_Reader", begun: int) -> None:
        """`reader` makes rows of lines; `begun` lines of `file` have been read."""
        self._file = file
        self._form = form
        self._reader = reader
        self._begun = begun

    async def batches(self, size: int = ROWS_IN_BATCH) -> AsyncIterator[list[Line[Row]]]:
        """Yields the lines in order, without blank ones: up to `size` at a time, or fewer if they
        are long.
        """
        with self._file as file:
            batch: list[Line[Row]] = []
            length = 0
            for number, text in enumerate(_lines(file), self._begun + 1):
                if text is None or text.strip():
                    batch.append(self._line(number, text))
                    length += len(text or b"")
                if len(batch) == size or length >= MAX_BATCH_BYTES:
                    yield batch
                    batch, length = [], 0
                if number % LINES_IN_TURN == 0:
                    # Other requests must not wait for a large file.
                    await asyncio.sleep(0)
            if batch:
                yield batch

    def close(self) -> None:
        """Closes the file. Call it only if the rows are not read."""
        self._file.close()

    def _line(self, number: int, text: bytes | None) -> Line[Row]:
        if text is None:
            return Line(number, InvalidInput(f"is longer than {MAX_LINE_BYTES} bytes"), "")
        try:
            row = self._reader.row(text)
            self._form.check(row)
        except InvalidInput as error:
            return Line(number, error, self._reader.value(text, self._form.subject))
        return Line(number, row, getattr(row, self._form.subject))


async def receive(
    stream: AsyncIterable[bytes],
    content_type: str,
    form: Form[Row],
    *,
    max_lines: int = MAX_LINES,
    bytes_in_memory: int = MAX_BYTES_IN_MEMORY,
) -> Upload[Row]:
    """Receives a file whose rows have the given form; CSV has a column for each field.

    A file with more than `bytes_in_memory` is stored on disk, without a name. The text may be in
    UTF-8 or, with a byte order mark, in UTF-16. The cells of CSV are separated by commas,
    semicolons or tabs, as in the header.

    Raises `HTTPException` (415), the errors of `stream`, `InvalidInput` for a file with more than
    `max_lines` lines, in another encoding or with a wrong header, `Overloaded` if too many files
    are being received, and `Unavailable` if there is no space.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in (NDJSON, CSV):
        raise HTTPException(status_code=415)
    file = await _received(stream, max_lines, bytes_in_memory)
    try:
        if media_type == NDJSON:
            return Upload(file, form, _JsonReader(form.kind), begun=0)
        return Upload(file, form, _CsvReader(form.kind, next(_lines(file), b"")), begun=1)
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
    """Each line with its end; None for a line that is too long, whose rest is skipped."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield None


class _Reader(Protocol):
    """Makes rows of lines."""

    def row(self, line: bytes) -> Any:
        """The row of a line. Raises `InvalidInput`."""

    def value(self, line: bytes, name: str) -> str:
        """The value of this field in a wrong line; empty if it cannot be read."""


class _JsonReader:
    """Reads NDJSON. Each row is an object on its own line."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self._decoder = msgspec.json.Decoder(kind)

    def row(self, line: bytes) -> Any:
        try:
            return decode(self._decoder, line)
        except ClientException:
            raise InvalidInput("is not JSON") from None

    def value(self, line: bytes, name: str) -> str:
        try:
            found = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ""
        value = found.get(name) if isinstance(found, dict) else None
        return value[:MAX_SUBJECT] if isinstance(value, str) else ""


class _CsvReader:
    """Reads CSV. An empty cell means that the field is left out. Raises `InvalidInput` for a wrong
    header.
    """

    def __init__(self, kind: type[msgspec.Struct], header: bytes | None) -> None:
        self._kind = kind
        found = (one for one in SEPARATORS if one.encode() in (header or b""))
        self._separator = next(found, ",")
        self._columns = [] if header is None else _cells(header, self._separator)
        self._numbers = _numbers(kind) if self._separator != "," else frozenset()
        known = {field.name: field for field in fields(kind)}
        for column in self._columns:
            if column not in known:
                raise InvalidInput("is not a known column", field=column[:100])
            if self._columns.count(column) > 1:
                raise InvalidInput("is a column twice", field=column)
        for name, field in known.items():
            if name not in self._columns and field.required:
                raise InvalidInput("is a required column", field=name)

    def row(self, line: bytes) -> Any:
        cells = _cells(line, self._separator)
        if len(cells) != len(self._columns):
            raise InvalidInput(f"has {len(cells)} cells instead of {len(self._columns)}")
        given = {name: cell for name, cell in zip(self._columns, cells, strict=True) if cell}
        for column in self._numbers & given.keys():
            if DECIMAL_COMMA.fullmatch(given[column]):
                given[column] = given[column].replace(",", ".")
        try:
            return msgspec.convert(given, self._kind, strict=False)
        except msgspec.ValidationError as error:
            raise named(error) from None

    def value(self, line: bytes, name: str) -> str:
        try:
            cells = _cells(line, self._separator)
        except InvalidInput:
            return ""
        # If a row has the wrong number of cells, the first cells are most likely right.
        return dict(zip(self._columns, cells, strict=False)).get(name, "")[:MAX_SUBJECT]


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
    """The cells of a row (RFC 4180). Each row is one line, so no cell contains a line break. Raises
    `InvalidInput`.
    """
    try:
        rows = list(csv.reader([line.decode().rstrip("\r\n")], delimiter=separator, strict=True))
    except (csv.Error, UnicodeDecodeError):
        raise InvalidInput("is not a line of CSV in UTF-8") from None
    return rows[0] if rows else []
