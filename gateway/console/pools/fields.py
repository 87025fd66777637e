"""A pool as fields of a form, and back as the JSON that the routes take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.administration.pool_types import Pool
from gateway.console.broker_names import BrokerNames
from gateway.console.changes import WAS, lines_of
from gateway.console.forms import Form

TEXTS = ("name", "description", "policy")
MAX_ID_DIGITS = 10
WEIGHT, PRIORITY = "100", "1"
POLICIES = (
    ("weighted", "Weighted: by the weights"),
    ("priority", "Priority: active and standby"),
    ("nearest", "Nearest: by region and location"),
)
NAMES = {
    "name": "Name",
    "description": "Description",
    "policy": "Policy",
    "is_sticky": "Devices keep their homes",
    "is_default": "Default",
    "members": "Members",
    "rebalance_percent": "Rebalancing",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A broker in the table of members, as it was typed."""

    id: int
    weight: str = WEIGHT
    priority: str = PRIORITY
    is_member: bool = True


def texts_of(pool: Pool) -> dict[str, str]:
    """The fields of a pool as its form has them, without the members."""
    return {**{name: getattr(pool, name) for name in TEXTS}, "is_sticky": _tick(pool.is_sticky)}


def rows_of(pool: Pool) -> list[Row]:
    """The members of a pool as its form has them."""
    return [
        Row(member.broker_id, str(member.weight), str(member.priority)) for member in pool.members
    ]


def seen_of(pool: Pool) -> dict[str, str]:
    """What the pages of a pool show of it, to say later what has changed since."""
    percent = pool.rebalance_percent
    return {
        **texts_of(pool),
        "members": lines(rows_of(pool)),
        "is_default": _tick(pool.is_default),
        "rebalance_percent": "" if percent is None else f"{percent:g} %",
    }


def texts_in(form: Form) -> dict[str, str]:
    """The typed fields, without the members."""
    texts = {name: form.text(name) for name in TEXTS if name in form}
    return {**texts, "is_sticky": _tick(form.is_ticked("is_sticky"))}


def rows_in(form: Form) -> list[Row]:
    """The typed members, with the broker that is to be added."""
    rows = [
        Row(
            broker_id,
            form.text(f"weight.{broker_id}"),
            form.text(f"priority.{broker_id}"),
            is_member=form.is_ticked(f"member.{broker_id}"),
        )
        for broker_id in ids_in(form.text("rows"))
    ]
    weight, priority = form.text("add_weight"), form.text("add_priority")
    added = ids_in(form.text("add_id"))
    return [*rows, *(Row(one, weight or WEIGHT, priority or PRIORITY) for one in added)]


def ids_in(text: str) -> list[int]:
    """The ids in a text; words that are no ids are left out."""
    return [
        int(word)
        for word in text.split()
        if word.isascii() and word.isdigit() and len(word) <= MAX_ID_DIGITS
    ]


def lines(rows: Iterable[Row]) -> str:
    """The members in words, one a line."""
    return "\n".join(
        f"broker {row.id}: weight {row.weight}, priority {row.priority}"
        for row in rows
        if row.is_member
    )


def changed(form: Form) -> dict[str, Any]:
    """The fields that differ from what the page showed, as the JSON of the route."""
    texts = texts_in(form)
    values: dict[str, Any] = {
        name: text for name, text in texts.items() if text != form.text(WAS + name)
    }
    if "is_sticky" in values:
        values["is_sticky"] = bool(values["is_sticky"])
    rows = rows_in(form)
    if lines(rows).splitlines() != lines_of(form, WAS + "members"):
        values["members"] = [_member(row) for row in rows if row.is_member]
    return values


def _member(row: Row) -> dict[str, Any]:
    """A text that is no number stays one, so that the route refuses it."""
    given = {"weight": row.weight or WEIGHT, "priority": row.priority or PRIORITY}
    numbers = Form(list(given.items()))
    return {"broker_id": row.id, **{name: numbers.number(name) for name in given}}


def words_of(members: Sequence[Mapping[str, int]], brokers: BrokerNames) -> str:
    """Members of a revision in words."""
    return ", ".join(
        f"{brokers.of(member['broker_id'])}: weight {member['weight']}, "
        f"priority {member['priority']}"
        for member in members
    )


def _tick(is_ticked: object) -> str:
    return "true" if is_ticked else ""
