"""Says so where the fuzzing is weaker than it could be."""

import pytest

from tests.fuzz.__main__ import way


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if way() == "unguided":
        terminalreporter.write_line(
            "tests/fuzz: there is no atheris for this Python and machine, so seeds were changed at"
            " random, without coverage as the guide",
            yellow=True,
        )
