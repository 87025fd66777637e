"""The subjects of commits that `make check` refuses, and the commits that it checks."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commits import LONGEST, NOT_IMPERATIVE, faults, main, subjects

MARK = "mark"


def git(folder: Path, *arguments: str) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **{f"GIT_{who}_NAME": "ann" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "ann@example.com" for who in ("AUTHOR", "COMMITTER")},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits before the file is added, the one that adds it, and two after."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    for subject in ("before.", "Before", "Add the mark", "after.", "Change the mark"):
        (folder / "other").write_text(subject)
        if subject in ("Add the mark", "Change the mark"):
            (folder / MARK).write_text(subject)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", subject)
    return folder


def looked_at(folder: Path) -> list[str]:
    return [subject for _, subject in subjects(folder, MARK)]


SINCE = ["Change the mark", "after.", "Add the mark"]


def test_commits_since_the_file_was_added_are_checked(repository: Path) -> None:
    assert looked_at(repository) == SINCE
    hashes = git(repository, "log", "--format=%H", "-3").split()
    assert [commit for commit, _ in subjects(repository, MARK)] == hashes


@pytest.mark.parametrize(
    ("depth", "seen"), [(1, SINCE[:1]), (2, SINCE[:2]), (3, SINCE), (4, SINCE), (9, SINCE)]
)
def test_of_a_shallow_clone_the_available_commits_are_checked(
    repository: Path, tmp_path: Path, depth: int, seen: list[str]
) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", f"--depth={depth}", f"file://{repository}", str(shallow))
    assert looked_at(shallow) == seen


def test_merges_are_left_out(repository: Path) -> None:
    git(repository, "switch", "--quiet", "--create", "side")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "Step aside")
    git(repository, "switch", "--quiet", "main")
    git(repository, "merge", "--quiet", "--no-ff", "--message", "merged.", "side")
    assert sorted(looked_at(repository)) == sorted(["Step aside", *SINCE])


def test_without_the_file_no_commit_is_checked(repository: Path) -> None:
    git(repository, "reset", "--quiet", "--hard", "HEAD~3")
    assert looked_at(repository) == []


def test_this_repository_follows_the_rule() -> None:
    assert main([]) == 0


@pytest.mark.parametrize(
    "subject",
    [
        "Close idle connections",
        "Use one timestamp per broker check",
        "Address two faults",
        "X" * 72,
    ],
)
def test_a_good_subject_is_accepted(subject: str) -> None:
    assert faults(subject) == []


@pytest.mark.parametrize(
    "subject", ["", "close it", "Close it.", "fix: the gate", "Fixes: the gate", "X" * 73, "1 more"]
)
def test_a_bad_subject_is_refused(subject: str, tmp_path: Path) -> None:
    assert faults(subject)
    message = tmp_path / "message"
    message.write_text(f"{subject}\n")
    assert main([str(message)]) == 1


def test_a_message_may_begin_with_empty_lines_and_comments(tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.write_text("\n# what git says.\nClose it\n\nfixes a fault.\n")
    assert main([str(message)]) == 0
    message.write_text("\n# What git says\nClose it.\n")
    assert main([str(message)]) == 1


@given(st.sampled_from(sorted(NOT_IMPERATIVE)), st.text("abc ", max_size=20))
def test_other_forms_of_a_verb_are_refused(word: str, rest: str) -> None:
    assert word.endswith(("s", "ed", "ing")) or word in {"made", "wrote"}
    assert faults(f"{word.capitalize()} {rest}")


@given(st.integers(0, 2 * LONGEST))
def test_the_limit_is_exact(length: int) -> None:
    assert bool(faults("A" * length)) == (not 0 < length <= LONGEST)
