"""Reports where fuzzing runs without coverage."""

import pytest

from tests.fuzz.__main__ import way


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if way() == "unguided":
        terminalreporter.write_line(
            "tests/fuzz: atheris does not exist for this Python and machine, so the seeds were"
            " changed at random, without coverage as the guide",
            yellow=True,
        )
