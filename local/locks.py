"""File locks that live exactly as long as the processes that hold them.

A lock belongs to an open file, which children may inherit: as long as one of them lives it is
held, however its parent died. Nothing is left to clean up after a SIGKILL, and no process id is
ever trusted.
"""

import fcntl
import os
import time
from pathlib import Path

from local.interrupts import POLL_S, heed


def locked(file: Path, patience_s: float) -> int | None:
    """A descriptor that holds the lock of `file`, or None if others held it for `patience_s`.

    Closing it gives the lock up, once every child that inherited it (`pass_fds`) is gone too.
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
        # flock() has no time limit of its own.
        time.sleep(POLL_S)
