"""The Makefile lists its targets, and pre-commit runs its checks."""

import os
import re
import subprocess

from tests import REPOSITORY


def make(*arguments: str) -> list[str]:
    # The environment without the variables of a make that runs the tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("M")}
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.splitlines()


def test_help_lists_every_target() -> None:
    [phony] = re.findall(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    lines = [line.split(maxsplit=1) for line in make("help")]
    assert sorted(phony.split()) == sorted(target for target, _ in lines)


def test_pre_commit_runs_what_make_check_runs() -> None:
    checked = [line for line in make("--dry-run", "check") if line.startswith(".venv/bin/")]
    hooks = re.findall(r"entry: (.*)$", (REPOSITORY / ".pre-commit-config.yaml").read_text(), re.M)
    assert checked == hooks
