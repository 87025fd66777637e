"""Names of variables: plain ones in each process, and earlier ones refused with the new one."""

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
# What the commands need on their command lines before they look at the environment.
ARGUMENTS = {
    "registry_service.administration.server_keys": ["retire", "--key", "1"],
    "registry_service.admission.reconciler.fill": ["--broker", "1", "--control-username", "u"],
}
COMMAND_LINES = [
    *((module, ARGUMENTS.get(module, [])) for module in sorted(CONFIGURATIONS.keys() - {MAKE_RUN})),
    ("registry_service.audit.sealing", ["verify"]),
]


def renamed() -> dict[str, dict[str, str]]:
    """What the CHANGELOG says of earlier names and present ones, by the process or command."""
    found: dict[str, dict[str, str]] = {}
    for row in (REPOSITORY / "CHANGELOG.md").read_text().splitlines():
        if named := re.fullmatch(r"\| `([A-Z_]+)` \| `([A-Z_]+)` \| (.*) \|", row):
            for process in re.findall("`([^`]+)`", named[3]):
                found.setdefault(process, {})[named[1]] = named[2]
    return found


EARLIER = {name for names in renamed().values() for name in names}


def refusal(module: str, arguments: list[str], environment: dict[str, str]) -> str:
    """What `python -m module` ends with; it is run in this Python, which saves a second each."""
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
    assert started - {"local"} == CONFIGURATIONS.keys() - {MAKE_RUN}
    assert len(EARLIER) > 20


@pytest.mark.parametrize(("module", "arguments"), COMMAND_LINES)
def test_the_earlier_names_of_its_own_variables_are_refused_and_no_others(
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
    # Each alone, also empty.
    for name, now in own.items():
        said = refusal(module, arguments, {name: ""})
        assert said == f"{heading}\n  {name}: this variable is called {now} now"
    # An environment that several processes share has names of others, which are not refused.
    said = refusal(module, arguments, dict.fromkeys(EARLIER - own.keys(), VALUE))
    assert said.startswith(heading)
    assert "is called" not in said


def test_make_run_refuses_the_names_that_it_had() -> None:
    own = renamed()[MAKE_RUN]
    for name, now in own.items():
        with (
            mock.patch.dict(os.environ, {name: "1"}, clear=True),
            pytest.raises(SystemExit, match=f"{name}: this variable is called {now} now"),
        ):
            load(LocalConfig)
    # It takes an empty variable for one that is not set.
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


def test_what_uses_the_database_has_one_role() -> None:
    for process, kinds in CONFIGURATIONS.items():
        roles = {kind.database_role for kind in kinds if issubclass(kind, DatabaseConfig)}
        assert len(roles) == ("DATABASE_URL" in variables(kinds)), process
        assert roles <= set(ROLES), process
