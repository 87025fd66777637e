"""docs/brokers/README.md says correctly which tests run with which versions of brokers."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import REPOSITORY
from tests.broker_versions import VERSIONS
from tests.documented import DOCS

TESTS = sorted((REPOSITORY / "tests").rglob("test_*.py"))
# The brokers by the fixture that starts them.
BROKERS = {"mosquitto_version": "Mosquitto", "rabbitmq": "RabbitMQ", "rabbitmq_version": "RabbitMQ"}


class Row(NamedTuple):
    broker: str
    enforcement: str
    versions: tuple[str, ...]
    tests: frozenset[str]


def rows() -> Iterator[Row]:
    for line in (DOCS / "brokers" / "README.md").read_text().splitlines():
        if line.startswith("| ["):
            broker, enforcement, versions, tests = line.strip("| ").split(" | ")
            yield Row(
                broker.partition("[")[2].partition("]")[0],
                enforcement,
                () if versions == "none" else tuple(versions.split(", ")),
                frozenset(re.findall(r"`(test_\w+\.py)`", tests)),
            )


def enforcements(file: Path) -> set[str]:
    """The names that the tests of a file give to what they test with every version."""
    return {
        ast.literal_eval(node.args[0])
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.every_version"
    }


def brokers(file: Path) -> set[str]:
    """The brokers that the tests of a file start."""
    named = {
        node.arg for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.arg)
    }
    return {broker for name, broker in BROKERS.items() if name in named}


def test_each_row_has_the_versions_and_the_tests_that_run_with_them() -> None:
    expected = defaultdict(set)
    for file in TESTS:
        for enforcement in enforcements(file):
            for broker in brokers(file):
                expected[broker, enforcement].add(file.name)
    documented = {(row.broker, row.enforcement): set(row.tests) for row in rows() if row.versions}
    assert documented == expected
    for row in rows():
        if row.versions:
            numbers = [version.number for version in VERSIONS[row.broker.lower()]]
            assert list(row.versions) == numbers, row


def test_each_documented_broker_has_a_row_and_each_test_exists() -> None:
    pages = {page.stem for page in (DOCS / "brokers").glob("*.md")} - {"README"}
    assert {row.broker.lower() for row in rows()} == pages
    assert {name for row in rows() for name in row.tests} <= {file.name for file in TESTS}


def test_each_page_names_the_versions_that_run_its_configuration() -> None:
    for broker, versions in VERSIONS.items():
        text = (DOCS / "brokers" / f"{broker}.md").read_text()
        assert not [one.number for one in versions if one.number not in text]


def test_nothing_that_mosquitto_3_removes_is_without_its_successor() -> None:
    for page in [*DOCS.rglob("*.md"), REPOSITORY / "README.md"]:
        text = page.read_text()
        for block in re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL):
            assert not re.search(r"(?m)^(per_listener_settings|auth_plugin|auth_opt_\w+) ", block)
        for option in ("acl_file", "password_file"):
            if re.search(rf"(?m)(^|`){option} /", text):
                assert f"# instead of {option}\n" in text, (page, option)
