"""Renders the pages. Everything that is inserted is escaped, unless a macro made it."""

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from gateway.console.assets import address_of, version

# From when on a certificate, or another thing that ends, needs a person.
URGENT = timedelta(days=7)
SOON = timedelta(days=30)


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


def clock(at: datetime) -> Markup:
    """The time of day in UTC, which the page's script shows in the person's zone."""
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}" data-clock>{}</time>').format(
        utc.isoformat(timespec="seconds").replace("+00:00", "Z"), utc.strftime("%H:%M")
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


@dataclass(frozen=True, slots=True)
class End:
    """When a thing ends, for a pill: its kind, words and icon."""

    kind: str
    text: str
    icon: str


def expiry(at: datetime | None, now: datetime | None = None) -> End:
    """How urgent the end of a certificate is."""
    if at is None:
        return End("off", "never", "clock")
    now = now or datetime.now(UTC)
    left = at - now
    if left <= timedelta():
        return End("bad", f"ended {until(at, now)} ago", "x")
    kind, icon = ("bad", "warn") if left < URGENT else ("warn", "warn")
    if left >= SOON:
        kind, icon = "ok", "check"
    return End(kind, until(at, now), icon)


def link(path: str, **query: Any) -> str:
    """A path with the query parameters that have a value."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


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
    made.filters |= {
        "clock": clock,
        "expiry": expiry,
        "grouped": grouped,
        "moment": moment,
        "until": until,
    }
    made.globals |= {
        "asset": _checked_asset,
        "assets_version": version,
        "counted": counted,
        "link": link,
    }
    return made


def rendered(template: str, **values: Any) -> bytes:
    """A page as HTML in UTF-8."""
    return environment().get_template(template).render(**values).encode()
