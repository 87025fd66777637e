"""Renders the pages. Everything that is inserted is escaped, unless a macro made it."""

import functools
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from gateway.console.assets import address_of, version


def grouped(number: int) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,}"


def counted(number: int, one: str, many: str) -> str:
    """The number with its noun: 1 device, 1,234 devices."""
    return f"{number:,} {one if number == 1 else many}"


def moment(at: datetime | None, otherwise: str = "never") -> Markup:
    """A time in UTC, which the page's script shows in the person's zone."""
    if at is None:
        return escape(otherwise)
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        utc.isoformat(timespec="seconds").replace("+00:00", "Z"),
        utc.strftime("%d %b %Y, %H:%M UTC"),
    )


def until(at: datetime, now: datetime | None = None) -> str:
    """How long it is until `at`, or since, in its largest unit: 9 days, 3 hours."""
    seconds = abs((at - (now or datetime.now(UTC))).total_seconds())
    for length, one, many in (
        (86_400, "day", "days"),
        (3_600, "hour", "hours"),
        (60, "minute", "minutes"),
    ):
        if seconds >= length:
            return counted(int(seconds // length), one, many)
    return "less than a minute"


def _checked_asset(name: str) -> str:
    return address_of(name)


@functools.cache
def environment() -> Environment:
    """The templates of this folder, with the filters that they use."""
    made = Environment(
        loader=PackageLoader("gateway.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"grouped": grouped, "moment": moment, "until": until}
    made.globals |= {"asset": _checked_asset, "assets_version": version, "counted": counted}
    return made


def rendered(template: str, **values: Any) -> bytes:
    """A page as HTML in UTF-8."""
    return environment().get_template(template).render(**values).encode()
