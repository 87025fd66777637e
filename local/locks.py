"""File locks that are held exactly as long as the processes that use them live.

A lock belongs to an open file, which children may inherit: it is held as long as one of them lives,
however their parent ended. After SIGKILL there is nothing to clean up, and process ids are never
relied on.
"""

import fcntl
import os
import time
from pathlib import Path

from local.interrupts import POLL_S, heed


def locked(file: Path, patience_s: float) -> int | None:
    """A descriptor that holds the lock of `file`, or None if others hold it for `patience_s`.

    Closing it releases the lock once every child that inherited it (`pass_fds`) has ended too.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
        else:
            return descriptor
        try:
            heed()
        except KeyboardInterrupt:
            os.close(descriptor)
            raise
        # flock() has no timeout.
        time.sleep(POLL_S)
