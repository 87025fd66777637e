"""Splits PEM text (RFC 7468) into its blocks. Text that is too long is not parsed."""

import binascii
import re
from dataclasses import dataclass

from chassis.errors import InvalidInput

MAX_CHARACTERS = 64 * 1024
# A body contains no hyphen, so matching never reads a text twice.
BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----([^-]*)-----END \1-----")
BOUNDARY = re.compile(r"-----(?:BEGIN|END)")
WHITESPACE = re.compile(r"\s+")

# Older programs write the second label.
CERTIFICATE = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})


@dataclass(frozen=True, slots=True)
class Block:
    """The text between two boundaries."""

    label: str
    der: bytes


def blocks_of(text: str, *, field: str, most: int) -> list[Block]:
    """The blocks of `text`, in order; other text is ignored (section 2). Raises `InvalidInput` for
    `field` if there are none or more than `most`, and for a block that is incomplete or not base64.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(f"must have at most {MAX_CHARACTERS} characters", field=field)
    if not text.isascii():
        text = text.encode("ascii", "replace").decode()
    if len(BOUNDARY.findall(text)) > 2 * most:
        raise InvalidInput(f"holds more than {most} PEM blocks", field=field)
    if BOUNDARY.search(BLOCK.sub("", text)):
        raise InvalidInput("holds a PEM block that is cut short", field=field)
    blocks = [Block(found[1], _der(found[2], field)) for found in BLOCK.finditer(text)]
    if not blocks:
        raise InvalidInput("is not PEM", field=field)
    return blocks


def united(*texts: str) -> str:
    """The certificates of stored texts as one text, without duplicates."""
    ends = "-----END CERTIFICATE-----\n"
    found = (one for text in texts for one in text.split(ends)[:-1])
    return "".join(one + ends for one in dict.fromkeys(found))


def _der(body: str, field: str) -> bytes:
    try:
        return binascii.a2b_base64(WHITESPACE.sub("", body), strict_mode=True)
    except binascii.Error:
        raise InvalidInput("holds a PEM block that is not base64", field=field) from None
