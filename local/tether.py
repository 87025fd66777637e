"""Processes that end when their parent ends, however that happens."""

import ctypes
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence

from local.errors import CannotRun

PR_SET_PDEATHSIG = 1


@functools.cache
def setpriv() -> str:
    """The path of util-linux's setpriv; BusyBox has a smaller program with the same name."""
    found = shutil.which("setpriv", path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin")
    if found:
        usage = subprocess.run([found, "--help"], capture_output=True, text=True, check=False)
        if "--pdeathsig" in usage.stdout:
            return found
    raise CannotRun("setpriv with --pdeathsig is missing: install the package util-linux")


def tethered(
    command: Sequence[str], farewell: signal.Signals, privileges: Sequence[str] = ()
) -> list[str]:
    """Wraps `command` so that it gets the signal `farewell` when the thread that starts it ends.

    So start it from the main thread. `privileges` are further arguments of setpriv.
    """
    # If the parent ends before setpriv asks for the signal, there is none. So the process must not
    # begin if its parent is not the one that started it.
    guard = f'[ "$PPID" = {os.getpid()} ] || exit 1; exec "$@"'
    return [
        *(setpriv(), "--pdeathsig", farewell.name.removeprefix("SIG"), *privileges),
        *("--", "/bin/sh", "-c", guard, "sh", *command),
    ]


def end_with_parent(farewell: signal.Signals) -> None:
    """Sends this process `farewell` when its parent ends, or ends it now if that has happened."""
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(farewell), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SystemExit("the process that started this has ended")
