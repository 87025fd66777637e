"""The command `python -m broker_service.simulate`, as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
EXAMPLE = REPOSITORY / "docs" / "examples" / "pool.toml"
PAGE = REPOSITORY / "docs" / "simulation.md"
PICTURE = REPOSITORY / "docs" / "images" / "simulation.svg"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "broker_service.simulate", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100)


def small(folder: Path) -> Path:
    """The example with fewer devices."""
    text, count = re.subn(r"(?m)^devices = .*", "devices = 2_000", EXAMPLE.read_text())
    assert count == 1
    file = folder / "pool.toml"
    file.write_text(text)
    return file


def test_the_example_runs_and_draws_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    done = run(small(tmp_path), "--picture", picture)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2,000 devices ask every 300 s; weighted, not sticky\n")
    for words in ("b03 goes down", "b03 comes up", "b11 joins", "b05 leaves"):
        assert words in done.stdout
        assert words in picture.read_text()
    assert "at the end, 0 devices are without a broker" in done.stdout


def test_the_page_shows_what_the_example_prints(tmp_path: Path) -> None:
    """The columns, and not the figures, which would need all the devices."""
    page = PAGE.read_text()
    printed = run(small(tmp_path)).stdout
    columns = [line.split() for line in printed.splitlines() if line.split()[1:2]]
    shown = [line.split() for line in page.splitlines()]
    assert columns[1] in shown  # the members
    assert next(line for line in columns if line[:2] == ["at", "event"]) in shown
    assert PICTURE.read_text().count("<polygon") == 11


def test_json_gives_the_same_as_toml(tmp_path: Path) -> None:
    described = {"members": [{"name": "a"}, {"name": "b"}], "devices": 100, "duration_s": 60}
    as_json, as_toml = tmp_path / "pool.json", tmp_path / "pool.toml"
    as_json.write_text(json.dumps(described))
    as_toml.write_text('members = [{name = "a"}, {name = "b"}]\ndevices = 100\nduration_s = 60\n')
    assert run(as_json).stdout == run(as_toml).stdout


INVALID: tuple[tuple[bytes, str], ...] = (
    (b"devices = 5\n", "Object missing required field `members`"),
    (b"devices = \n", "Invalid value (at line 1, column 11)"),
    (b"\xff\xfe", "it is not UTF-8"),
    (b"#" * (2**20 + 1), "it is larger than 1,048,576 bytes"),
    (b"members = [{name = 'a'}, {name = 'a'}]", "two members are named 'a'"),
)


@pytest.mark.parametrize(("content", "why"), INVALID)
def test_an_invalid_description_gives_one_line_and_status_2(
    tmp_path: Path, content: bytes, why: str
) -> None:
    file = tmp_path / "pool.toml"
    file.write_bytes(content)
    done = run(file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{file}: {why}\n"


def test_a_file_that_cannot_be_read_or_written_gives_status_2(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    done = run(missing)
    assert (done.returncode, done.stderr) == (2, f"{missing}: No such file or directory\n")
    done = run(small(tmp_path), "--picture", tmp_path / "missing" / "picture.svg")
    assert done.returncode == 2
    assert done.stderr.endswith("picture.svg: No such file or directory\n")
    assert run().returncode == 2
