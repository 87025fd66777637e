"""What changed lately: lines of the audit log in words, and which of them can be undone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.administration.audit_log import AuditLine
from gateway.console.broker_names import BrokerNames
from gateway.console.templates import link

SHOWN = 8
FIELDS_SHOWN = 3
MAX_VALUE = 60
# Signing in and out changes nothing that a person would look for here.
LEFT_OUT = ("session.",)
VERBS = {
    "create": "added",
    "update": "changed",
    "delete": "deleted",
    "rename": "renamed",
    "revoke": "revoked",
    "set_default": "made the default",
    "rollback": "rolled back",
    "cut_over": "cut over",
    "stage": "staged",
    "cancel": "cancelled",
}
# The pages of the subjects, by the resources of the actions.
PAGES = {
    "broker": "brokers",
    "certificate": "certificates",
    "rotation": "certificates",
    "device": "devices",
    "fleet": "fleets",
    "job": "jobs",
    "pool": "pools",
    "provisioning_key": "provisioning-keys",
    "region": "regions",
    "rollout": "fleets",
}
# After these, a job that was started can be undone.
ENDS_OF_JOBS = frozenset({"job.pause", "job.fail", "job.finish", "job.cancel"})
BAD_VERBS = frozenset({"delete", "revoke"})
# Fields that hold the id of a broker.
BROKER_FIELDS = ("mqtt_broker_id", "broker_id", "default_broker_id", "backup_broker_id")


@dataclass(frozen=True, slots=True)
class Difference:
    """A field before and after the change, as short texts."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A change. `path` is the page of its subject and `undo` the page that undoes it, or empty."""

    at: datetime | None
    actor: str
    verb: str
    thing: str
    path: str
    kind: str
    undo: str = ""
    # What the person must be allowed to undo: pin, default, broker, rollout or job.
    undoes: str = ""
    differences: Sequence[Difference] = field(default_factory=tuple)


def brokers_in(lines: Sequence[AuditLine]) -> set[int]:
    """The ids of the brokers that `lines` are about or name."""
    found = set()
    for line in lines:
        if line.action.startswith("broker.") and line.subject.isdecimal():
            found.add(int(line.subject))
        for fields in (values_of(line.before), values_of(line.after)):
            found |= {fields[name] for name in BROKER_FIELDS if isinstance(fields.get(name), int)}
    return found


def entries_of(lines: Sequence[AuditLine], brokers: BrokerNames) -> list[Entry]:
    """The newest changes in `lines`, which are the newest lines first; `brokers` are those of
    `brokers_in`.
    """
    found: list[Entry] = []
    changed: set[tuple[str, str]] = set()
    for line in lines:
        if line.refusal is not None or line.action.startswith(LEFT_OUT):
            continue
        resource, _, verb = line.action.partition(".")
        before, after = values_of(line.before), values_of(line.after)
        subject = (resource, line.subject)
        # Only the last change of a thing can be undone without undoing others.
        undoes, undo = "", ""
        if subject not in changed:
            undoes, undo = undo_of(line.action, line.subject, before, after)
            if undoes == "job" and not _is_undoable(line.subject, lines):
                undoes, undo = "", ""
        changed.add(subject)
        place = PAGES.get(resource)
        found.append(
            Entry(
                line.at,
                line.actor or "Mooring",
                VERBS.get(verb, verb.replace("_", " ")),
                _thing(resource, line.subject, brokers),
                f"/console/{place}/{quote(line.subject, safe='')}" if place else "",
                "bad" if verb in BAD_VERBS else "info",
                undo,
                undoes,
                _differences(before, after, brokers),
            )
        )
        if len(found) == SHOWN:
            break
    return found


def _thing(resource: str, subject: str, brokers: BrokerNames) -> str:
    if resource == "broker" and subject.isdecimal():
        name = brokers.names.get(int(subject))
        return f"broker {name or subject}"
    return f"{resource.replace('_', ' ')} {subject}"


def values_of(raw: Any) -> Mapping[str, Any]:
    """The fields of a line, which may be JSON that was not read yet."""
    value = msgspec.json.decode(raw) if isinstance(raw, msgspec.Raw) else raw
    return value if isinstance(value, Mapping) else {}


def undo_of(
    action: str, subject: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[str, str]:
    """What the change was of, and the page that undoes it; both are empty if it cannot be undone
    by one request of the API.
    """
    own = quote(subject, safe="")
    if action == "device.update" and {*before} == {*after} == {"mqtt_broker_id"}:
        pins = {"was": after["mqtt_broker_id"] or 0, "to": before["mqtt_broker_id"] or 0}
        return "pin", link(f"/console/undo/pin/{own}", **pins)
    if action == "broker.set_default":
        previous = before.get("default_broker_id")
        if previous is not None and str(after.get("default_broker_id")) == subject:
            return "default", link(f"/console/undo/default/{previous}", was=subject)
    if action == "broker.update":
        return "broker", f"/console/undo/broker/{own}"
    if action == "rollout.set":
        return _undo_of_rollout(own, values_of(before.get("rollout")), values_of(after["rollout"]))
    if action in ENDS_OF_JOBS:
        return "job", f"/console/jobs/{own}/undo"
    return "", ""


def _undo_of_rollout(
    fleet: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[str, str]:
    if not before:
        return "rollout", f"/console/fleets/{fleet}/rollout/stop"
    if {**before, "percent": None} != {**after, "percent": None}:
        # Another rollout. Its salt is not known, so that going back would reach other devices.
        return "", ""
    waves = {"broker_id": after["broker_id"], "was": after["percent"], "to": before["percent"]}
    return "rollout", link(f"/console/undo/rollout/{fleet}", **waves)


def _is_undoable(job: str, lines: Sequence[AuditLine]) -> bool:
    """Whether the job has moved devices, and was not undone. A job of which `lines` do not show
    the start is too old to be offered.
    """
    acts = {line.action for line in lines if line.subject == job and line.refusal is None}
    return "job.start" in acts and "job.undo" not in acts


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], brokers: BrokerNames
) -> list[Difference]:
    def shown(name: str, value: Any) -> str:
        if name in BROKER_FIELDS and isinstance(value, int):
            return _short(brokers.of(value))
        return _short(value)

    names = [*dict.fromkeys((*before, *after))]
    return [
        Difference(name, shown(name, before.get(name)), shown(name, after.get(name)))
        for name in names
        if before.get(name) != after.get(name)
    ][:FIELDS_SHOWN]


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"
