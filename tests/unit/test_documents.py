"""The documents: all links work, and every page can be found."""

import re
from pathlib import Path

import pytest

from chassis.config import MetricsConfig
from registry_service.audit.sealing.chain import Fault
from tests import REPOSITORY
from tests.configurations import MAKE_RUN, configurations, variables
from tests.documented import DOCS

PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")])
FENCE = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
README_BYTES = 8 * 1024
NAME = re.compile(r"`([A-Z_]+)`")
CONFIGURATIONS = configurations()


def links(page: Path) -> list[str]:
    """The links of a page to files of the repository."""
    found = LINK.findall(FENCE.sub("", page.read_text()))
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes from the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_bytes()) <= README_BYTES


def test_every_page_is_in_the_index() -> None:
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "README.md")}
    missing = {page for page in DOCS.rglob("*.md") if page != DOCS / "README.md"} - listed
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def documented() -> dict[str, set[str]]:
    """The variables of each process, each command and `make run` on the page that lists them."""
    _, _, page = (DOCS / "configuration.md").read_text().partition("## `make run`\n")
    make_run, _, others = page.partition("\n## A process started alone\n")
    labels = {
        label_of(process): process
        for process, kinds in CONFIGURATIONS.items()
        if any(issubclass(kind, MetricsConfig) for kind in kinds)
    }
    found = {MAKE_RUN: {name for cells in rows(make_run) for name in NAME.findall(cells[0])}}
    for cells in rows(others):
        command = cells[0].strip("`")
        if command in CONFIGURATIONS:
            found[command] = set(NAME.findall(cells[1]))
            continue
        for label in labels if cells[1] == "all" else cells[1].split(", "):
            found.setdefault(labels[label], set()).update(NAME.findall(cells[0]))
    return found


def label_of(process: str) -> str:
    """The page names a process by the end of its module's name. There are two workers."""
    if process == "broker_service.worker":
        return "broker worker"
    return process.rpartition(".")[2].removesuffix("_service")


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of tables that begin with a name."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_configuration_page_names_exactly_the_variables() -> None:
    read = {process: variables(kinds) for process, kinds in CONFIGURATIONS.items()}
    assert {"GATEWAY_PORT", "MOORING_HOME"} <= read[MAKE_RUN]
    assert "WORKER_LOOPS" in read["registry_service.worker"]
    assert documented() == read


def test_the_audit_log_page_names_exactly_the_faults() -> None:
    _, _, table = (DOCS / "audit-log.md").read_text().partition("| it says | what happened |\n")
    rule, *found = table.partition("\n\n")[0].splitlines()
    assert set(rule) == set("|-")
    named = [fault for row in found for fault in row.split("|")[1].strip().split(", ")]
    assert sorted(named) == sorted(fault.value for fault in Fault)


def test_the_folders_of_the_architecture_exist() -> None:
    _, _, section = (DOCS / "architecture.md").read_text().partition("## The folders\n")
    table = section.partition("\n## ")[0]
    named = {
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([\w/]+/)`", row.split("|")[1])
    }
    assert {"gateway/", "registry_service/provisioning/", "docs/"} <= named
    assert not {name for name in named if not (REPOSITORY / name).is_dir()}
    # Each folder that serves gRPC is among them.
    packages = {
        f"{file.parent.relative_to(REPOSITORY)}/"
        for package in ("broker_service", "registry_service")
        for file in REPOSITORY.glob(f"{package}/*/servicer.py")
    }
    assert packages <= named


def test_one_term_has_one_meaning() -> None:
    _, _, glossary = (DOCS / "architecture.md").read_text().partition("## Glossary\n")
    terms = [
        term
        for row in glossary.splitlines()
        if row.startswith("| ") and not row.startswith("| term ")
        for term in row.split("|")[1].split(" (")[0].strip().split(", ")
    ]
    assert len(terms) > 50
    assert sorted(terms) == sorted(set(terms))
