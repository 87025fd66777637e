"""Forms: read strictly, and given to the JSON routes as the JSON that they take."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar.exceptions import ClientException, HTTPException

from chassis.errors import InvalidInput
from gateway.bodies import decode
from gateway.console.same_origin import require_form_token
from gateway.console.visitor import ConsoleRequest, session_secret_of

FORM_TOKEN = "form_token"  # noqa: S105 - the name of a field
MAX_FIELDS = 2_000
# Longer numbers fit no field; JSON has 64 bits for them.
MAX_DIGITS = 18
MEDIA_TYPE = "application/x-www-form-urlencoded"


class Form:
    """The fields of a form, as a person filled them in."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        """`pairs` are names and values, in the order of the page."""
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        """Whether the form has the field. A box that is not ticked is not sent."""
        return name in self._values

    def text(self, name: str) -> str:
        """The last value of a field, without the spaces around it; empty if it has none."""
        return self._values.get(name, [""])[-1].strip()

    def verbatim(self, name: str) -> str:
        """The last value of a field as it was typed, for passwords and files."""
        return self._values.get(name, [""])[-1]

    def texts(self, name: str) -> list[str]:
        """All values of a field that are not empty."""
        return [value for found in self._values.get(name, []) if (value := found.strip())]

    def is_ticked(self, name: str) -> bool:
        """Whether a box is ticked."""
        return name in self._values

    def number(self, name: str) -> int | str | None:
        """The value as a number; None if it is empty. A text that is no number stays a text, so
        that the route refuses it by the name of its field.
        """
        text = self.text(name)
        digits = text.removeprefix("-")
        is_number = digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS
        return int(text) if is_number else text or None


async def form_of(request: ConsoleRequest) -> Form:
    """The form in the body. Raises `FormExpired`, `InvalidInput`, and HTTP's 400 and 415."""
    form = parsed(request.headers.get("content-type", ""), await request.body())
    require_form_token(form.text(FORM_TOKEN), session_secret_of(request))
    return form


def parsed(content_type: str, body: bytes) -> Form:
    """Reads a form. Raises `InvalidInput`, and HTTP's 400 and 415."""
    if not body:
        return Form([])
    if content_type.partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise HTTPException(status_code=415)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except UnicodeDecodeError:
        raise ClientException from None
    except ValueError:
        raise InvalidInput("has too many fields", field="form") from None
    return Form(pairs)


def body_of(handler: Any, values: Mapping[str, Any]) -> Any:
    """`values` as the body of a JSON route, read as the route reads it. `handler` is the route.
    Raises `InvalidInput`, which names the field.
    """
    return decode(handler.dto.decoder, msgspec.json.encode(dict(values)))
