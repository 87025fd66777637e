"""The three real processes, on a home and ports of their own."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervised import Run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "home")
    run.start()
    try:
        yield run
    finally:
        run.end()


@pytest.fixture(scope="session")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after its first run: one for all workers of the tests."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = shared / "used-home"
    with (shared / "used-home.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            run = Run(tmp_path_factory.mktemp("first") / "home")
            try:
                run.start()
                assert run.stop() == (0, "mooring: stopped\n")
            finally:
                run.end()
            shutil.copytree(run.home, shared / "used-home.unfinished")
            (shared / "used-home.unfinished").rename(made)
    return made


@pytest.fixture
def later_run(used_home: Path, tmp_path: Path) -> Iterator[Run]:
    """A run that is not started yet, on a used home of its own."""
    home = tmp_path / "home"
    shutil.copytree(used_home, home)
    run = Run(home)
    yield run
    run.end()


@pytest.fixture
def first_run(tmp_path: Path) -> Iterator[Run]:
    """A run that is not started yet, and will be the first on its home."""
    run = Run(tmp_path / "home")
    yield run
    run.end()
