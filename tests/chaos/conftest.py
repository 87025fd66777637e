"""The three services on a PostgreSQL that a test can stop and start."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.postgres import Postgres, prepare
from tests.supervised import Run


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    with Postgres(tmp_path / "server") as server:
        yield server


@pytest.fixture
def run(tmp_path: Path, server: Postgres) -> Iterator[Run]:
    """The three services on a PostgreSQL of the test's own, which the test can stop and start."""
    run = Run(tmp_path / "home")
    run.settings["MOORING_DATABASE_URL"] = prepare(server, secrets.token_urlsafe())
    run.start()
    try:
        yield run
    finally:
        run.end()
