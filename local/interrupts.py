"""The signals that end a run, and those that say a child has ended.

SIGINT, SIGTERM and SIGHUP become a `KeyboardInterrupt` where the main thread asks for it: in its
waits. An exception that may strike anywhere would also strike where it is swallowed, in a weak
reference's callback for one, and where a process that was just started has no owner yet. Signal
handlers belong to the whole process, and so does the state of this module.
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
    """From now on the signals are remembered. `nohup` is honoured: an ignored SIGHUP stays so."""
    for signum in STOPPING:
        if signum is not signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _remember)


def heed() -> None:
    """Raises `KeyboardInterrupt` if one of the signals has come."""
    if _told:
        raise KeyboardInterrupt


@contextmanager
def at_once() -> Iterator[None]:
    """In the block signals interrupt whatever is under way: for what may take long."""
    global _at_once
    heed()
    _at_once = True
    try:
        yield
    finally:
        _at_once = False
    heed()


def wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether `process` ended within `timeout_s`; heeds the signals meanwhile."""
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

        Heeds the signals, which wake it too.
        """
        heed()
        if select.select([self._wake], [], [], timeout_s)[0]:
            self._wake.recv(4096)
        heed()
