"""Files that are read again when they change. So secrets and keys can be replaced without a
restart.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOOK_EVERY_S = 1.0


class Reloaded(Generic[T]):
    """The content of a file. If the file becomes unreadable, the previous content stays, and a line
    is logged once.
    """

    def __init__(self, file: Path, read: Callable[[Path], T], *more: Path) -> None:
        """Reads `file`. Raises the errors of `read`, which is `SystemExit` for an invalid file.

        `more` are further files that `read` reads; all are read again when one of them changes.
        """
        self._file = file
        self._files = (file, *more)
        self._read = read
        self._stamps = [stamp_of(each) for each in self._files]
        self._value = read(file)
        self._looked_at = time.monotonic()

    @property
    def value(self) -> T:
        """The content, at most a second old."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            stamps = [stamp_of(each) for each in self._files]
            if stamps != self._stamps:
                self._stamps = stamps
                try:
                    self._value = self._read(self._file)
                except (SystemExit, OSError, ValueError) as error:
                    log.warning(
                        "a changed file cannot be used, so what it held before stays",
                        file=str(self._file),
                        why=str(error),
                    )
                else:
                    log.info("a changed file was read again", file=str(self._file))
        return self._value


def stamp_of(file: Path) -> tuple[int, ...]:
    """A value that changes when the file, or the link to it, changes; empty if the file does not
    exist.
    """
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino
