"""What a broker sent and what it gets back, and how what it sent is read: strictly, or not at all.

A dialect is pure. Its operations turn a request into questions, or into notices of clients that
came and went, and verdicts into what the broker understands.
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

# MQTT lets a username or a client id have 64 KB. Nothing longer than this is of ours.
MAX_CHARACTERS = 1_024
# Brokers send about ten.
MAX_FIELDS = 100


class Unreadable(Exception):
    """The request makes no sense in its dialect."""


class Asked(Struct, frozen=True):
    """A request: its headers by name in lower case, its query string and its body."""

    headers: Mapping[bytes, bytes]
    query: bytes
    body: bytes

    def __repr__(self) -> str:
        """Nothing of it: it holds secrets."""
        return "Asked(…)"


class DialectReply(Struct, frozen=True):
    """What the broker gets; of a dialect, never a 5xx."""

    status: int
    content_type: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Operation(Protocol):
    """What a broker can ask for, by the last segment of the path."""

    def read(self, request: Asked) -> Sequence[Question] | Sequence[Notice]:
        """What the broker wants to know, or tells. Raises `Unreadable`.

        Empty where it is refused whatever is known of the client, and where there is nothing to
        take note of.
        """
        ...

    def answer(self, request: Asked, verdicts: Sequence[Verdict]) -> DialectReply:
        """What to reply: `verdicts` are on the questions, in their order.

        There are none for notices. For what is `Unreadable` there is one, and it is a denial.
        """
        ...


def content_type(request: Asked) -> bytes:
    """The media type alone, in lower case; empty where none is said."""
    return request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def read_json(decoder: "msgspec.json.Decoder[Body]", request: Asked) -> Body:
    """The body as what `decoder` is for. Raises `Unreadable`."""
    if content_type(request) != JSON:
        raise Unreadable("the body is not application/json")
    try:
        # The decoder skips over fields it does not know without looking at their bytes.
        request.body.decode()
        return decoder.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("the JSON does not have the fields that it should have") from None


def read_form(kind: type[Body], encoded: bytes) -> Body:
    """A query string or a form as a `kind`. Raises `Unreadable`, also where a field has two values.

    The encoding is that of HTML forms: a space is "+", everything but ASCII is percent-encoded
    UTF-8.
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
    """Raises `Unreadable` for a username, password or client id that can be nobody's."""
    for name in names:
        if len(name) > MAX_CHARACTERS or "\0" in name:
            raise Unreadable("a name is too long or has a NUL")
