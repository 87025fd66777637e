"""Stores uploads until they have been read: bounded in number, in bytes and by the disk.

The files have no name (`O_TMPFILE`, or unlinked at once), so they disappear when the process is
killed.
"""

import contextlib
import shutil
import tempfile
import weakref
from typing import Any

from chassis.errors import Overloaded, Unavailable

MAX_UPLOADS = 8
# The most bytes of all uploads: four of the largest files.
MAX_BYTES_IN_ALL = 2 * 1024 * 1024 * 1024
# The space on the disk that uploads leave free.
FREE_BYTES = 512 * 1024 * 1024
# The free space on the disk is checked each time that a file has grown by so many bytes.
CHECK_BYTES = 16 * 1024 * 1024
RETRY_S = 30.0


class Spool:
    """Counts the uploads that this process stores."""

    def __init__(
        self,
        max_uploads: int = MAX_UPLOADS,
        max_bytes: int = MAX_BYTES_IN_ALL,
        free_bytes: int = FREE_BYTES,
    ) -> None:
        """`free_bytes` must stay free on the disk."""
        self._max_uploads = max_uploads
        self._max_bytes = max_bytes
        self._free_bytes = free_bytes
        self.uploads = 0
        self.bytes = 0

    def open(self, bytes_in_memory: int) -> "Kept":
        """A file for one upload. Raises `Overloaded`."""
        if self.uploads >= self._max_uploads:
            raise Overloaded("too many files are being uploaded", retry_after_s=RETRY_S)
        self.uploads += 1
        return Kept(self, bytes_in_memory)

    def take(self, count: int) -> None:
        """Counts more bytes. Raises `Overloaded`."""
        if self.bytes + count > self._max_bytes:
            raise Overloaded("too much is being uploaded", retry_after_s=RETRY_S)
        self.bytes += count

    def require_room(self) -> None:
        """Raises `Unavailable` if the disk is nearly full."""
        with contextlib.suppress(OSError):
            if shutil.disk_usage(tempfile.gettempdir()).free < self._free_bytes:
                raise Unavailable("there is no room to keep the file", retry_after_s=RETRY_S)

    def release(self, taken: list[int]) -> None:
        """Uncounts an upload that was closed."""
        self.uploads -= 1
        self.bytes -= taken[0]


class Kept(tempfile.SpooledTemporaryFile[bytes]):
    """The file of one upload. It is counted until it is closed or garbage-collected."""

    def __init__(self, spool: Spool, bytes_in_memory: int) -> None:
        super().__init__(max_size=bytes_in_memory)
        self._spool = spool
        self._in_memory = bytes_in_memory
        self._taken = [0]
        self._checked_at = 0
        self._release = weakref.finalize(self, spool.release, self._taken)

    def write(self, data: Any) -> int:
        """Raises `Overloaded`, `Unavailable`, `OSError`."""
        count = len(data)
        self._spool.take(count)
        self._taken[0] += count
        if self._taken[0] > self._in_memory and self._taken[0] >= self._checked_at:
            self._spool.require_room()
            self._checked_at = self._taken[0] + CHECK_BYTES
        return super().write(data)

    def close(self) -> None:
        """May be called twice."""
        super().close()
        self._release()

    def __exit__(self, *_: object) -> None:
        self.close()
