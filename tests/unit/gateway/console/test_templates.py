"""What every template keeps to, so that the content security policy holds without exceptions."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.changes import KINDS
from gateway.console.assets import FOLDER, all_assets
from gateway.console.templates import environment, grouped, until

TEMPLATES = Path(__file__).parents[4] / "gateway" / "console" / "templates"
FILES = sorted(TEMPLATES.glob("*.html"))
OWN_SCRIPTS = [file for file in sorted(FOLDER.glob("*.js")) if not file.name.endswith(".min.js")]

# What the policy blocks, and what htmx would have to evaluate.
BANNED = {
    "an inline style": r"<style|\sstyle=",
    "an inline script": r"<script(?![^>]*\bsrc=)",
    "a handler in an attribute": r"\son[a-z]+=",
    "hx-on": r"\b(data-)?hx-on\b",
    "js: in an attribute of htmx": r"""hx-[\w:]+=("|')[^"']*\b(js|javascript):""",
    "a filter of a trigger": r"""hx-trigger[\w:]*=("|')[^"']*\[""",
    "a file of another origin": r"""(src|href|action)=("|')(https?:)?//""",
    "text that is not escaped": r"\|\s*safe\b",
}


@pytest.mark.parametrize("what", BANNED)
def test_no_template_holds(what: str) -> None:
    for file in FILES:
        found = re.search(BANNED[what], file.read_text())
        assert found is None, f"{file.name}: {found and found[0]}"


def test_every_template_compiles() -> None:
    for file in FILES:
        environment().get_template(file.name)


def test_every_icon_that_is_named_is_there() -> None:
    symbols = set(re.findall(r'<symbol id="([^"]+)"', all_assets()["icons.svg"].plain.decode()))
    for file in FILES:
        text = file.read_text()
        named = set(re.findall(r'\bicon\("([^"]+)"', text))
        named |= set(re.findall(r'icons\.svg"\) }}#(\w+)', text))
        assert named <= symbols, file.name


def test_every_asset_that_is_named_is_there() -> None:
    for file in FILES:
        for name in re.findall(r'asset\("([^"]+)"\)', file.read_text()):
            assert name in all_assets(), f"{file.name}: {name}"


def test_scripts_import_only_scripts_that_are_there() -> None:
    for script in OWN_SCRIPTS:
        text = script.read_text()
        for name in re.findall(r'from "([^"]+)"', text):
            assert name.removeprefix("./") in all_assets(), f"{script.name}: {name}"
        for banned in (
            "eval(",
            "new Function",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
        ):
            assert banned not in text, f"{script.name}: {banned}"


def test_the_kinds_that_pages_follow_are_there() -> None:
    stated = {
        file.name: set(re.findall(r"\w+", found[1]))
        for file in FILES
        if (found := re.search(r"{% block live %}([^{]+){% endblock %}", file.read_text()))
    }
    for name, kinds in stated.items():
        assert kinds <= KINDS, name
    assert {"overview.html", "broker_settings.html", "devices.html", "job.html"} <= set(stated)


def test_texts_of_numbers_and_times() -> None:
    assert grouped(1234567) == "1,234,567"
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for length, text in (
        (timedelta(seconds=59), "less than a minute"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(hours=23, minutes=59), "23 hours"),
        (timedelta(days=9, hours=1), "9 days"),
        (timedelta(days=-2), "2 days"),
    ):
        assert until(now + length, now) == text
