"""The signals that end a run, and those that report the end of a child.

After SIGINT, SIGTERM or SIGHUP the waits of the main thread raise `KeyboardInterrupt`. Raised
anywhere else, it could be swallowed, for example in the callback of a weak reference, or could lose
a process that has just started. Signal handlers belong to the whole process, and so does the state
of this module.
"""

import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_S = 0.02

_told = False
_at_once = False


def _remember(_signum: int, _frame: FrameType | None) -> None:
    global _told
    _told = True
    if _at_once:
        heed()


def obey() -> None:
    """Remembers the signals from now on. A SIGHUP that `nohup` ignores stays ignored."""
    for signum in STOPPING:
        if signum is not signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _remember)


def heed() -> None:
    """Raises `KeyboardInterrupt` if one of the signals was received."""
    if _told:
        raise KeyboardInterrupt


@contextmanager
def at_once() -> Iterator[None]:
    """In the block, the signals interrupt running code at once: use it for long operations."""
    global _at_once
    heed()
    _at_once = True
    try:
        yield
    finally:
        _at_once = False
    heed()


def wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether `process` ended within `timeout_s`. Raises `KeyboardInterrupt` after a signal."""
    deadline = time.monotonic() + timeout_s
    while True:
        heed()
        try:
            process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                return False
        else:
            return True


class ChildExits:
    """Lets the main thread sleep until a child ends."""

    def __init__(self) -> None:
        """Takes over SIGCHLD and the process's wake-up descriptor."""
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def wait(self, timeout_s: float | None) -> None:
        """Returns when a child has ended since the last call, or after `timeout_s`.

        Raises `KeyboardInterrupt` after a signal, which also ends the wait.
        """
        heed()
        if select.select([self._wake], [], [], timeout_s)[0]:
            self._wake.recv(4096)
        heed()
