"""`python -m tests.fuzz TARGET SECONDS`: fuzzes one target, and prints each fault as a test."""

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import TARGETS, case

# Time beyond the search: for imports, the seeds, and the input that is under way.
GRACE_S = 60.0


def fuzz(name: str, seconds: float) -> tuple[bool, str]:
    """Whether no fault was found, and the text to print."""
    with tempfile.TemporaryDirectory() as folder:
        # A fault may end the process, so the search has a process of its own.
        run = subprocess.run(
            [sys.executable, "-m", f"tests.fuzz.{way()}", name, str(seconds), folder],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds + GRACE_S,
        )
        said = run.stdout.decode(errors="replace")
        found = [case(name, file.read_bytes()) for file in Path(folder).glob("found-*")]
    if run.returncode == 0 and not found:
        return True, said
    return False, f"{said[-6_000:]}\n\nThe input, as a test:\n\n" + "\n".join(found)


def way() -> str:
    """The module to use here: atheris exists for some versions of Python on Linux only."""
    return "guided" if importlib.util.find_spec("atheris") else "unguided"


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"{__doc__}\nTargets: {', '.join(TARGETS)}")
    with contextlib.suppress(KeyboardInterrupt):
        is_sound, text = fuzz(sys.argv[1], float(sys.argv[2]))
        print(text)  # noqa: T201 - this is a command
        sys.exit(not is_sound)
