"""What a page would keep from people: found by axe, and by measuring."""

from collections.abc import Sequence
from pathlib import Path

from playwright.async_api import Page

from tests.browser.visits import Theme

AXE = (Path(__file__).parent / "axe.min.js").read_text()
IMPACTS = ("serious", "critical")
# Colours differ between the themes, and nothing else does.
THEMES: tuple[tuple[Theme, tuple[str, ...]], ...] = (("light", ()), ("dark", ("color-contrast",)))
RUN = """async ([options, impacts]) => {
  const {violations} = await axe.run(document, {resultTypes: ["violations"], ...options});
  return violations
    .filter(({impact}) => impacts.includes(impact))
    .flatMap(({id, nodes}) => nodes.map(({target, failureSummary}) =>
      `${id}: ${target.join(" ")}: ${failureSummary}`));
}"""
# Elements that reach over the right edge, unless a part of the page that scrolls contains them.
WIDER = """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
  [...document.body.querySelectorAll("*")]
    .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((e) => `is wider than the window: <${e.localName} class="${e.className}">`).slice(0, 5)
    .concat(["the page scrolls sideways"])"""

SHOWN = """() => [...document.querySelectorAll("[hidden]")].filter((e) => e.checkVisibility())
  .map((e) => `is shown although it is hidden: ${e.outerHTML.slice(0, 100)}`)"""


async def faults(page: Page) -> list[str]:
    """What keeps people from using the page as it is now, at its present size, in both themes.

    The theme of the system is another one afterwards.
    """
    found = await shown_although_hidden(page) + await overflow(page)
    for theme, rules in THEMES:
        await page.emulate_media(color_scheme=theme)
        found += await violations(page, rules)
    return found


async def violations(page: Page, rules: Sequence[str] = ()) -> list[str]:
    """Lines for what axe calls serious or critical, by `rules`, or by all if there are none."""
    if not await page.evaluate("() => 'axe' in window"):
        # The content security policy blocks a script element, but not the debugger.
        await page.evaluate(AXE)
    options = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else {}
    found: list[str] = await page.evaluate(RUN, [options, IMPACTS])
    return found


async def overflow(page: Page) -> list[str]:
    """Lines about a page that has to be scrolled sideways."""
    found: list[str] = await page.evaluate(WIDER)
    return found


async def shown_although_hidden(page: Page) -> list[str]:
    """Lines about elements that a style shows against their attribute `hidden`."""
    found: list[str] = await page.evaluate(SHOWN)
    return found
