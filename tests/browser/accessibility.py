"""What a page would keep from people: found by axe, and by measuring."""

from collections.abc import Sequence
from pathlib import Path

from playwright.async_api import Page

AXE = (Path(__file__).parent / "axe.min.js").read_text()
IMPACTS = ("serious", "critical")
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
