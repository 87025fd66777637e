"""Checks the subjects of commits since this file was added.

`python -m tests.commits` checks the history; `python -m tests.commits FILE` checks the message of a
commit that is being made, as git's hook `commit-msg` calls it.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONGEST = 72
# First words that are not imperative, of verbs with which subjects often begin.
OTHER_FORMS = """
added adding adds allowed allowing allows bumped bumping bumps changed changing changes
checked checking cleaned cleaning cleans closed closing corrected correcting corrects
created creating creates deleted deleting deletes documented documenting
dropped dropping drops ensured ensuring ensures fixed fixing fixes
implemented implementing implements improved improving improves
introduced introducing introduces made making makes merged merging merges moved moving moves
refactored refactoring refactors refused refusing refuses removed removing removes
renamed renaming renames replaced replacing replaces reverted reverting reverts
showed showing simplified simplifying simplifies stopped stopping
tested updated updating updates used using uses wrote writing writes
"""
NOT_IMPERATIVE = frozenset(OTHER_FORMS.split())


def faults(subject: str) -> list[str]:
    """The faults of a subject."""
    found = []
    if len(subject) > LONGEST:
        found.append(f"it has {len(subject)} characters, {LONGEST} are allowed")
    if not subject[:1].isupper():
        found.append("it does not begin with a capital letter")
    if subject.endswith("."):
        found.append("it ends with a full stop")
    first = subject.partition(" ")[0].rstrip(":,").lower()
    if first in NOT_IMPERATIVE:
        found.append(f"it begins with {first!r}: use the imperative")
    return found


def subjects(repository: Path, file: str = "tests/commits.py") -> list[tuple[str, str]]:
    """Hashes and subjects of the commits since the one that added `file`, including that.

    For a shallow clone these are the commits that it has. Merges are left out.
    """
    added = _git(repository, "log", "--diff-filter=A", "--format=%H", "--", file).split()
    if not added:
        return []
    listed = _git(
        repository, "log", "--no-merges", "--format=%H %s", "HEAD", "--not", f"{added[-1]}^@"
    )
    return [(line[:40], line[41:]) for line in listed.splitlines()]


def _git(repository: Path, *arguments: str) -> str:
    # Options that a user's configuration may have changed.
    plain = ("-c", "log.showRoot=true", "-c", "log.showSignature=false")
    command = ["git", "-C", str(repository), *plain, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(arguments: list[str]) -> int:
    """Returns the exit status: 1 if a subject has a fault."""
    if arguments:
        lines = Path(arguments[0]).read_text(encoding="utf-8").splitlines()
        # Git ignores empty lines at the beginning, and comments.
        written = [line for line in lines if line.strip() and not line.startswith("#")]
        checked = [("this commit", written[0] if written else "")]
    elif (ROOT / ".git").exists():
        checked = subjects(ROOT)
    else:
        print("commit subjects are not checked: this is no git repository")  # noqa: T201
        return 0
    found = [
        f"{commit[:12]} {subject!r}: {fault}"
        for commit, subject in checked
        for fault in faults(subject)
    ]
    for line in found:
        print(line, file=sys.stderr)  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
