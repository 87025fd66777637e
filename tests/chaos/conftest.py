"""The three services on a PostgreSQL that a test can stop and start."""

import secrets
from collections.abc import Iterator

import pytest

from local.postgres import Postgres, prepare
from tests.supervised import Run


# The tests of a module leave both as they found them.
@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, server: Postgres) -> Iterator[Run]:
    """The three services on a PostgreSQL of their own, which a test can stop and start."""
    run = Run(tmp_path_factory.mktemp("run") / "home")
    run.settings["MOORING_DATABASE_URL"] = prepare(server, secrets.token_urlsafe())
    run.start()
    try:
        yield run
    finally:
        run.end()
