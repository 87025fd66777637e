"""Programs that tests need beside Python; where one cannot be had, the run stops with one line."""

from pathlib import Path

import pytest

from local import debian
from local.errors import CannotRun


def program(name: str) -> tuple[Path, dict[str, str]]:
    """The program `name`, and the environment to start it with."""
    try:
        return debian.program(name)
    except CannotRun as reason:
        pytest.exit(str(reason), returncode=1)
