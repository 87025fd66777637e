"""Reads text with or without a byte order mark, in UTF-8 or UTF-16.

PowerShell writes UTF-16 by default, and Excel and PowerShell write UTF-8 with a mark.
"""

import codecs

from chassis.errors import InvalidInput

# UTF-32 is checked first, because its mark begins with the mark of UTF-16.
UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
LONGEST_MARK = 4


class Utf8:
    """A file as UTF-8 without its mark, piece by piece."""

    def __init__(self) -> None:
        self._begun = b""
        self._has_begun = False
        self._decoder: codecs.IncrementalDecoder | None = None

    def feed(self, piece: bytes, *, is_last: bool = False) -> bytes:
        """The UTF-8 text up to the end of `piece`. Raises `InvalidInput` for another encoding."""
        if not self._has_begun:
            piece = self._begun + piece
            if len(piece) < LONGEST_MARK and not is_last:
                self._begun = piece
                return b""
            piece = self._begin(piece)
        if self._decoder is None:
            return piece
        try:
            return self._decoder.decode(piece, is_last).encode()
        except UnicodeError:
            raise InvalidInput("is not text in UTF-16, as its first bytes say") from None

    def _begin(self, piece: bytes) -> bytes:
        self._has_begun = True
        if piece.startswith(UTF_32):
            raise InvalidInput("is text in UTF-32: send it in UTF-8")
        encoding = UTF_16.get(piece[:2])
        if encoding is not None:
            self._decoder = codecs.getincrementaldecoder(encoding)()
            return piece[2:]
        return piece.removeprefix(codecs.BOM_UTF8)


def utf8_of(text: bytes) -> bytes:
    """A whole file as UTF-8 without its mark. Raises `InvalidInput` for another encoding."""
    return Utf8().feed(text, is_last=True)
