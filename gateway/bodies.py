"""JSON bodies, read once and strictly.

Litestar's own decoding answers 500 to invalid UTF-8 and to deep nesting, accepts `"2"` as a number
and any content type as JSON.
"""

import re
from codecs import BOM_UTF8
from typing import Any, ClassVar, TypeVar

import msgspec
from litestar.dto import AbstractDTO
from litestar.exceptions import ClientException, HTTPException
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

from chassis.errors import InvalidInput

Body = TypeVar("Body")

# A message of msgspec: "Expected `str`, got `int` - at `$.location.latitude`"
FAULT = re.compile(r"(?P<message>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
# "Object missing required field `uuid`": the path leads to the object, not to the field.
NAMED_FIELD = re.compile(r"Object .* field `(?P<name>.*)`", re.DOTALL)
MAX_FIELD_CHARACTERS = 100


def decode(decoder: "msgspec.json.Decoder[Body]", body: bytes) -> Body:
    """The body as a value of the decoder's type. Raises `ClientException` (400) if the body is not
    JSON in UTF-8 (RFC 8259, section 8.1) or is nested too deeply, and `InvalidInput`, which names
    the field, if the JSON does not fit the type. A byte order mark before it is skipped, as that
    section allows.
    """
    body = body.removeprefix(BOM_UTF8)
    try:
        # The decoder skips unknown fields without checking their bytes.
        body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        # The decoder may find a wrong value before it reads invalid JSON after it.
        _require_json(body)
        raise named(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ClientException from None


def _require_json(body: bytes) -> None:
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        # Valid JSON (RFC 8259, section 6) with a number that no type can hold.
        return
    except (msgspec.DecodeError, RecursionError):
        raise ClientException from None


def named(error: msgspec.ValidationError) -> InvalidInput:
    """The error, with the field as it is named in the body."""
    fault = str(error)
    found = FAULT.fullmatch(fault)
    message, path = (found["message"], found["path"] or "") if found else (fault, "")
    if named := NAMED_FIELD.fullmatch(message):
        path = f"{path}.{named['name']}" if path else named["name"]
        message = "is required" if message.startswith("Object missing") else "is not known here"
    return InvalidInput(message, field=path[:MAX_FIELD_CHARACTERS])


def is_json(content_type: str) -> bool:
    """Whether a Content-Type is application/json, with any parameters."""
    return content_type.partition(";")[0].strip().lower() == "application/json"


class StrictJson(AbstractDTO[Body]):
    """`dto=StrictJson[NewBroker]`: the handler's `data` is a `NewBroker`.

    Unknown fields are ignored, or refused if the type has `forbid_unknown_fields`.
    """

    decoder: ClassVar["msgspec.json.Decoder[Any]"]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Makes the decoder, once for each type."""
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "model_type"):
            cls.decoder = msgspec.json.Decoder(cls.model_type)

    def decode_bytes(self, value: bytes) -> Any:
        """Called by Litestar for a body that is not empty."""
        if not is_json(self.asgi_connection.headers.get("content-type", "")):
            raise HTTPException(status_code=415)
        return decode(self.decoder, value)

    @classmethod
    def is_supported_model_type_field(cls, field_definition: FieldDefinition) -> bool:
        """Used for bodies only, never for answers."""
        return field_definition.name == "data"

    @classmethod
    def create_for_field_definition(cls, *_: Any, **__: Any) -> None:
        """Generates nothing: the type is its own schema."""

    @classmethod
    def create_openapi_schema(
        cls,
        field_definition: FieldDefinition,
        handler_id: str,  # noqa: ARG003
        schema_creator: Any,
    ) -> Reference | Schema:
        """The type's own schema."""
        schema: Reference | Schema = schema_creator.for_field_definition(field_definition)
        return schema
