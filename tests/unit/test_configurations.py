"""Names of variables: plain ones in each process; earlier ones are refused with the new name."""

import os
import re
import runpy
import sys
import warnings
from unittest import mock

import pytest

from chassis.config import DatabaseConfig, load
from local.config import LocalConfig
from tests import REPOSITORY
from tests.configurations import MAKE_RUN, PACKAGES, configurations, variables
from tests.stack import ROLES

CONFIGURATIONS = configurations()
VALUE = "postgresql://user:sesame@host/database"
# Arguments that commands need before they read the environment.
ARGUMENTS = {
    "registry_service.administration.server_keys": ["retire", "--key", "1"],
    "registry_service.admission.reconciler.fill": ["--broker", "1", "--control-username", "u"],
}
COMMAND_LINES = [
    *((module, ARGUMENTS.get(module, [])) for module in sorted(CONFIGURATIONS.keys() - {MAKE_RUN})),
    ("registry_service.audit.sealing", ["verify"]),
]


def renamed() -> dict[str, dict[str, str]]:
    """Earlier and present names by process or command, as the CHANGELOG lists them."""
    found: dict[str, dict[str, str]] = {}
    for row in (REPOSITORY / "CHANGELOG.md").read_text().splitlines():
        if named := re.fullmatch(r"\| `([A-Z_]+)` \| `([A-Z_]+)` \| (.*) \|", row):
            for process in re.findall("`([^`]+)`", named[3]):
                found.setdefault(process, {})[named[1]] = named[2]
    return found


EARLIER = {name for names in renamed().values() for name in names}


def refusal(module: str, arguments: list[str], environment: dict[str, str]) -> str:
    """The error with which `python -m module` exits; it runs in this process, which saves a second
    each.
    """
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", [module, *arguments]),
        # Most modules are imported already.
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),
        pytest.raises(SystemExit) as refused,
    ):
        runpy.run_module(module, run_name="__main__")
    return str(refused.value)


def test_every_process_and_every_command_is_found() -> None:
    started = {
        ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__main__")
        for package in PACKAGES
        for file in (REPOSITORY / package).rglob("*.py")
        if 'if __name__ == "__main__":' in file.read_text()
    }
    # The simulation reads no variables.
    unconfigured = {"local", "broker_service.simulate"}
    assert started - unconfigured == CONFIGURATIONS.keys() - {MAKE_RUN}
    assert len(EARLIER) > 20


@pytest.mark.parametrize(("module", "arguments"), COMMAND_LINES)
def test_only_the_earlier_names_of_a_processs_own_variables_are_refused(
    module: str, arguments: list[str]
) -> None:
    own = renamed().get(module, {})
    heading = f"configuration of {module}:"
    lines = [f"  {name}: this variable is called {now} now" for name, now in sorted(own.items())]
    for case in (str.upper, str.lower):
        said = refusal(module, arguments, {case(name): VALUE for name in EARLIER})
        assert "sesame" not in said
        if own:
            assert said.splitlines() == [heading, *lines]
        else:
            assert said.startswith(heading)
            assert "is called" not in said
    # Each name alone, also with an empty value.
    for name, now in own.items():
        said = refusal(module, arguments, {name: ""})
        assert said == f"{heading}\n  {name}: this variable is called {now} now"
    # A shared environment has names of other processes, which are not refused.
    said = refusal(module, arguments, dict.fromkeys(EARLIER - own.keys(), VALUE))
    assert said.startswith(heading)
    assert "is called" not in said


def test_make_run_refuses_its_earlier_names() -> None:
    own = renamed()[MAKE_RUN]
    for name, now in own.items():
        with (
            mock.patch.dict(os.environ, {name: "1"}, clear=True),
            pytest.raises(SystemExit, match=f"{name}: this variable is called {now} now"),
        ):
            load(LocalConfig)
    # An empty variable counts as not set.
    with mock.patch.dict(os.environ, dict.fromkeys(own, ""), clear=True):
        load(LocalConfig)


def test_the_changelog_has_every_earlier_name() -> None:
    assert {
        process: names
        for process, kinds in CONFIGURATIONS.items()
        if (names := {a: b for kind in kinds for a, b in kind.earlier_names().items()})
    } == renamed()


def test_earlier_names_lead_to_variables_that_are_read() -> None:
    for process, names in renamed().items():
        assert set(names.values()) <= variables(CONFIGURATIONS[process]), process
        assert not names.keys() & variables(CONFIGURATIONS[process]), process


def test_a_process_that_uses_the_database_has_one_role() -> None:
    for process, kinds in CONFIGURATIONS.items():
        roles = {kind.database_role for kind in kinds if issubclass(kind, DatabaseConfig)}
        assert len(roles) == ("DATABASE_URL" in variables(kinds)), process
        assert roles <= set(ROLES), process
