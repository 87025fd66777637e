"""`python -m tests.vendored`: whether the files that were taken over are as they were published.

A folder with such files has a VENDORED.toml, which names each with its package, version, licence
and SHA-256.
"""

import hashlib
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("gateway", "tests")
KEYS = {"name", "package", "version", "path", "licence", "sha256"}


def faults(lists: list[Path]) -> list[str]:
    """A line for each file that is missing or differs, and for each entry that lacks something."""
    found = []
    for listed in lists:
        for entry in tomllib.loads(listed.read_text())["file"]:
            file = listed.parent / entry.get("name", "")
            if entry.keys() != KEYS:
                found.append(f"{listed}: {entry}: each file has {', '.join(sorted(KEYS))}")
            elif not file.is_file():
                found.append(f"{file}: is missing")
            elif hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
                found.append(f"{file}: differs from {entry['package']} {entry['version']}")
    return found


if __name__ == "__main__":
    lines = faults(
        sorted(file for folder in FOLDERS for file in (ROOT / folder).glob("**/VENDORED.toml"))
    )
    sys.exit("\n".join(lines) or None)
