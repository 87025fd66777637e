"""Requests of brokers and replies to them, and the strict reading of requests. A dialect has no
state and does no I/O. Its operations turn a request into questions, or into notices of clients that
connected or disconnected, and turn verdicts into a reply.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from registry_service.admission.questions import Notice, Question, Verdict

Body = TypeVar("Body")

JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"
TEXT = b"text/plain"

# In MQTT a username or a client id may have 64 KB. No name of Mooring's clients is longer than
# this.
MAX_CHARACTERS = 1_024
# The most fields of a form. Brokers send about ten.
MAX_FIELDS = 100


class Unreadable(Exception):
    """The request makes no sense in its dialect."""


class Asked(Struct, frozen=True):
    """A request: its headers by name in lower case, its query string and its body."""

    headers: Mapping[bytes, bytes]
    query: bytes
    body: bytes

    def __repr__(self) -> str:
        """Shows nothing, because a request contains secrets."""
        return "Asked(…)"


class DialectReply(Struct, frozen=True):
    """The HTTP reply; a dialect never answers with a 5xx."""

    status: int
    content_type: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Operation(Protocol):
    """An operation that a broker can call, by the last segment of the path."""

    def read(self, request: Asked) -> Sequence[Question] | Sequence[Notice]:
        """The questions or notices of the request. Raises `Unreadable`. Empty if the answer is a
        denial for every client, or if there is nothing to record.
        """
        ...

    def answer(self, request: Asked, verdicts: Sequence[Verdict]) -> DialectReply:
        """The reply: `verdicts` answer the questions, in order. There are none for notices. For an
        `Unreadable` request there is one, a denial.
        """
        ...


def content_type(request: Asked) -> bytes:
    """The media type alone, in lower case; empty if there is none."""
    return request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def read_json(decoder: "msgspec.json.Decoder[Body]", request: Asked) -> Body:
    """The body as a value of the decoder's type. Raises `Unreadable`."""
    if content_type(request) != JSON:
        raise Unreadable("the body is not application/json")
    try:
        # The decoder skips unknown fields without checking their bytes.
        request.body.decode()
        return decoder.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("the JSON does not have the fields that it should have") from None


def read_form(kind: type[Body], encoded: bytes) -> Body:
    """A query string or a form as a `kind`. Raises `Unreadable`, also if a field has two values.
    The encoding is the one of HTML forms: a space is "+", other characters than ASCII are
    percent-encoded UTF-8.
    """
    fields: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            encoded.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
        for name, value in pairs:
            if fields.setdefault(name, value) != value:
                raise Unreadable("a field has two values")
        return msgspec.convert(fields, kind)
    except (ValueError, msgspec.ValidationError):
        raise Unreadable("the form does not have the fields that it should have") from None


def check_names(*names: str) -> None:
    """Raises `Unreadable` for a username, password or client id that no client can have."""
    for name in names:
        if len(name) > MAX_CHARACTERS or "\0" in name:
            raise Unreadable("a name is too long or has a NUL")
