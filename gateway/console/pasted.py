"""Files of rows that a person pasted into a form, given to the JSON routes as uploads."""

from collections.abc import AsyncIterator

from gateway.uploads import CSV, NDJSON


def type_of(text: str) -> str:
    """The media type of a file of rows: a line of NDJSON begins with a brace, CSV has a header."""
    return NDJSON if text.lstrip("\ufeff \t\r\n").startswith("{") else CSV


async def stream_of(text: str) -> AsyncIterator[bytes]:
    """The text as the body of an upload."""
    yield text.encode()
