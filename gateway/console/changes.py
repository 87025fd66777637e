"""Forms that change something: only what a person changed is sent, and a refusal is shown in place.

Beside each field such a form has a hidden one with the value that the page showed (the macro `was`
in change_parts.html). So a form that was open for long does not undo what another person changed.
Where the resource has revisions, the form has the revision too that the page showed (the macro
`seen`): if another person has changed the resource since, the page shows both versions.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chassis.errors import LostRace, MooringError
from gateway.console.broker_names import BrokerNames
from gateway.console.forms import Form
from gateway.console.pages import problem_of
from gateway.console.visitor import ConsoleRequest
from gateway.context import context_of
from gateway.problems import Problem, of_error

WAS = "was."
MAX_ID_DIGITS = 10
# A refusal with one of these statuses is shown above the form, with what was typed.
SHOWN_IN_PLACE = frozenset({409, 412, 422, 503})
# How fields that have these names are put into words, in all forms.
BROKERS = frozenset({"mqtt_broker_id", "default_broker_id", "allowed_broker_ids", "broker_ids"})
TICKS = frozenset({"is_active", "is_restricted", "only_expected", "reprovisioning_allowed"})
# The value of an input of the type datetime-local.
LOCAL_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that another person has changed, in words."""

    name: str
    then: str
    now: str
    # What the person has typed instead, if anything.
    mine: str | None


def lines_of(form: Form, name: str) -> list[str]:
    """The lines of all values of a field, without empty ones."""
    return _lines(form.texts(name))


def _lines(texts: Iterable[str]) -> list[str]:
    found = (line.strip() for text in texts for line in text.splitlines())
    return [line for line in found if line]


def seen_revision(form: Form) -> list[int]:
    """The revision that the page showed, as `if_revision`; one that no resource has if the form has
    none.
    """
    revision = form.number("revision")
    return [revision if isinstance(revision, int) and revision > 0 else 0]


def lost_in(form: Form, error: MooringError) -> Form | None:
    """The form, if it was refused because another person changed the resource first."""
    return form if isinstance(error, LostRace) else None


def changed_since(
    lost: Form | None, now: Mapping[str, str], typed: Mapping[str, str], brokers: BrokerNames
) -> list[Difference] | None:
    """The fields whose values in `now` are not those that the page of the form `lost` showed, each
    beside what the person has typed. None if no race was lost.
    """
    if lost is None:
        return None

    def words(name: str, lines: list[str]) -> str:
        if name in TICKS:
            return "yes" if lines else "no"
        if name in BROKERS:
            lines = [brokers.of(int(line)) if _is_id(line) else line for line in lines]
        return ", ".join(lines) or "empty"

    return [
        Difference(
            name,
            words(name, then),
            words(name, _lines([text])),
            words(name, _lines([typed[name]])) if name in typed else None,
        )
        for name, text in now.items()
        if WAS + name in lost and (then := lines_of(lost, WAS + name)) != _lines([text])
    ]


def ids_in(form: Form, name: str) -> list[int | str]:
    """Ids, one a line. A text that is no id stays a text, so that the route refuses it."""
    return [int(line) if _is_id(line) else line for line in lines_of(form, name)]


def _is_id(line: str) -> bool:
    return line.isascii() and line.isdigit() and len(line) <= MAX_ID_DIGITS


def typed_in(form: Form, names: Iterable[str]) -> dict[str, str]:
    """What was typed, to show it again; several values are one a line."""
    return {name: "\n".join(lines_of(form, name)) for name in names}


def changed_in(form: Form, names: Iterable[str]) -> list[str]:
    """The fields whose values are not those that the page showed."""
    return [name for name in names if lines_of(form, name) != lines_of(form, WAS + name)]


def moment_in(form: Form, name: str) -> str | None:
    """A time in UTC as RFC 3339; None if the field is empty. Another text stays as it is, so that
    the route refuses it.
    """
    return in_utc(form.text(name)) or None


def in_utc(text: str) -> str:
    """The value of an input for a time, with the zone that the input does not say."""
    return f"{text if text.count(':') > 1 else f'{text}:00'}Z" if is_local(text) else text


def is_local(text: str) -> bool:
    """Whether the text is a time without a zone."""
    return LOCAL_MOMENT.fullmatch(text) is not None


def moment_text(at: datetime | None) -> str:
    """A time as the value of an input for times, in UTC."""
    if at is None:
        return ""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def problem_in_place(request: ConsoleRequest, error: MooringError) -> Problem:
    """The problem to show above the form. Raises `error` again if it needs a page of its own."""
    if of_error(error).content.status not in SHOWN_IN_PLACE:
        raise error
    return problem_of(request, error)


def errors_of(problem: Problem) -> Mapping[str, str]:
    """The text for the field that the problem names: `labels[3]` is the field `labels`."""
    if not problem.field:
        return {}
    return {re.split(r"[.\[]", problem.field, maxsplit=1)[0]: problem.detail}


def own_address(request: ConsoleRequest) -> str:
    """Where people and devices reach this gateway, without a slash at its end."""
    headers: Any = request.headers
    own = f"{request.scope['scheme']}://{headers.get('host', '')}"
    return (context_of(request).public_url or own).rstrip("/")
