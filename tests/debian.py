"""Programs that tests need beside Python. If one is not available, the run stops with one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local.errors import CannotRun
from tests import debian_packages


def program(name: str, suite: str = "") -> tuple[Path, dict[str, str]]:
    """The program `name`, from `suite` if it is given, and the environment to start it with."""
    with _or_none_at_all():
        return debian_packages.program(name, suite)


def tree(package: str, part: str, suite: str = "") -> tuple[Path, dict[str, str]]:
    """The folder with the package's files, and the environment for its programs."""
    with _or_none_at_all():
        root = debian_packages.tree(package, part, suite)
        is_whole = suite or root == Path("/")
        return root, {} if is_whole else debian_packages.libraries_of(root)


@contextmanager
def _or_none_at_all() -> Iterator[None]:
    try:
        yield
    except CannotRun as reason:
        pytest.exit(str(reason), returncode=1)
