"""Programs that tests need beside Python; where one cannot be had, the run stops with one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local import debian
from local.errors import CannotRun


def program(name: str) -> tuple[Path, dict[str, str]]:
    """The program `name`, and the environment to start it with."""
    with _or_none_at_all():
        return debian.program(name)


def tree(package: str, part: str) -> tuple[Path, dict[str, str]]:
    """The folder with the package's files, and what its programs need in their environment."""
    with _or_none_at_all():
        root = debian.tree(package, part)
        return root, {} if root == Path("/") else debian.libraries_of(root)


@contextmanager
def _or_none_at_all() -> Iterator[None]:
    try:
        yield
    except CannotRun as reason:
        pytest.exit(str(reason), returncode=1)
