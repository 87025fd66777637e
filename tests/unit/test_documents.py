"""The documents: what they link to is there, and every page can be found."""

import importlib
import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from tests import REPOSITORY
from tests.documented import DOCS

PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")])
FENCE = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
README_BYTES = 8 * 1024


def links(page: Path) -> list[str]:
    """The links of a page to files of the repository."""
    found = LINK.findall(FENCE.sub("", page.read_text()))
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
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


def settings() -> set[str]:
    """The variables that processes and `make run` read."""
    found: set[str] = set()
    for package in ("broker_service", "registry_service", "gateway", "local"):
        for file in (REPOSITORY / package).rglob("config.py"):
            name = ".".join(file.relative_to(REPOSITORY).with_suffix("").parts)
            for kind in vars(importlib.import_module(name)).values():
                if isinstance(kind, type) and issubclass(kind, BaseSettings):
                    found |= {field.upper() for field in kind.model_fields}
    return found


def test_the_page_of_the_configuration_names_every_variable_and_no_other() -> None:
    rows = (DOCS / "configuration.md").read_text().splitlines()
    named = {
        name
        for row in rows
        if row.startswith("| `")
        for name in re.findall(r"`([A-Z_]+)`", row.split("|")[1])
    }
    assert {"GATEWAY_PORT", "WORKER_LOOPS"} <= named
    assert named == settings()


def test_the_folders_of_the_architecture_are_there() -> None:
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
