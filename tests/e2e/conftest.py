"""The three real processes, on a home and ports of their own."""

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
