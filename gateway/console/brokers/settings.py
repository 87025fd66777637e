"""A broker's settings: the form, what saving it would do, and what to do after a lost race."""

import asyncio
from collections.abc import Mapping
from typing import Any

from litestar import Response, get, post
from litestar.params import FromQuery

from chassis.errors import InvalidInput, LostRace, MooringError, NotFound
from chassis.trust import Access, WithinFleets
from gateway.administration import broker_history, brokers, certificates
from gateway.administration.broker_types import Broker
from gateway.administration.brokers import DryRun
from gateway.administration.fields import PathId
from gateway.console.brokers.fields import (
    ANSWERED,
    NAMES,
    body,
    changed,
    shown,
    typed,
)
from gateway.console.brokers.shell import (
    broker_of,
    broker_page,
    counts_of,
    notified_of,
    path_of,
)
from gateway.console.changes import seen_revision
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import problem_of, see_other
from gateway.console.visitor import ConsoleRequest, visitor_of
from gateway.problems import Problem

MAX_CERTIFICATES = 200
MAX_BACKUPS = 500
LATEST = 3


async def certificates_of(request: ConsoleRequest, kind: Any) -> list[tuple[str, str]]:
    """The certificates that a broker can have, as options of a choice."""
    listed: Any = await certificates.list_certificates.fn(
        request, limit=MAX_CERTIFICATES, kind=kind
    )
    options = [(str(one.id), f"{one.name} (number {one.id})") for one in listed.items]
    return [("", "None"), *options]


async def _backups_of(request: ConsoleRequest, broker_id: int | None) -> list[tuple[str, str]]:
    """The brokers that can be the backup of a broker, as options of a choice."""
    listed: Any = await brokers.list_brokers.fn(request, limit=MAX_BACKUPS)
    others = [one for one in listed.items if one.id != broker_id]
    return [("", "None"), *((str(one.id), f"{one.name} (number {one.id})") for one in others)]


async def choices_of(
    request: ConsoleRequest, values: Mapping[str, Any], broker_id: int | None = None
) -> dict[str, list[tuple[str, str]]]:
    """The options of the choices of the broker; the present one is among them, however many there
    are.
    """
    cas, clients, backups = await asyncio.gather(
        certificates_of(request, "ca"),
        certificates_of(request, "client"),
        _backups_of(request, broker_id),
    )
    choices = {
        "ca_certificate_id": cas,
        "client_certificate_id": clients,
        "backup_broker_id": backups,
    }
    for name, options in choices.items():
        present = values.get(name, "")
        if present not in dict(options):
            options.append((present, f"number {present}"))
    return choices


async def _latest(request: ConsoleRequest, broker_id: int) -> Any:
    if not visitor_of(request).may(broker_history.list_broker_revisions):
        return None
    return await broker_history.list_broker_revisions.fn(request, broker_id, limit=LATEST)


def field_errors(problem: Problem | None) -> dict[str, str]:
    """What a problem says about a field of the form."""
    if problem is None or not isinstance(problem.field, str):
        return {}
    # A fault within a field is named as labels.site.
    field = problem.field.partition(".")[0].partition("[")[0]
    return {field: f"{problem.detail[:1].upper()}{problem.detail[1:]}."}


async def settings_page(
    request: ConsoleRequest,
    broker: Broker,
    *,
    values: dict[str, Any] | None = None,
    names: frozenset[str] = frozenset(),
    problem: Problem | None = None,
    status: int = 200,
    **more: Any,
) -> Response[bytes]:
    """The page. `values` are what was typed, `names` the fields that differ from `broker`."""
    stored = shown(broker)
    values = stored | (values or {})
    may_change = visitor_of(request).may(brokers.update_broker)

    async def no_choices() -> dict[str, list[tuple[str, str]]]:
        return {}

    counts, latest, choices = await asyncio.gather(
        counts_of(request, broker.id),
        _latest(request, broker.id),
        choices_of(request, values, broker.id) if may_change else no_choices(),
    )
    return broker_page(
        request,
        "broker_settings.html",
        broker,
        status=status,
        values=values,
        stored=stored,
        changed=names,
        reaches_devices=bool(names & ANSWERED),
        counts=counts,
        notified=notified_of(counts.told) if counts else None,
        latest=latest.items if latest else [],
        choices=choices,
        names=NAMES,
        problem=problem,
        errors=field_errors(problem),
        **{"theirs": {}, "warnings": [], "saved": False, **more},
    )


@get("/{broker_id:int}", access=WithinFleets(Access.VIEWER))
async def broker_settings(
    request: ConsoleRequest, broker_id: PathId, saved: FromQuery[bool] = False
) -> Response[bytes]:
    """The settings as they are."""
    return await settings_page(request, await broker_of(request, broker_id), saved=saved)


@post(
    "/{broker_id:int}",
    access=Access.OPERATOR,
    action="broker.update",
    status_code=200,
)
async def save_broker(
    request: ConsoleRequest, broker_id: PathId, dry_run: DryRun = False
) -> Response[Any]:
    """Saves what has changed, unless another person has changed the broker since the form was
    loaded. With `dry_run`, as while a person types, only says what saving would do.
    """
    form = await form_of(request)
    [revision] = seen_revision(form)
    if not revision:
        raise InvalidInput("load the page again", field="revision")
    now = await broker_of(request, broker_id)
    values = typed(form)
    names: set[str] = set()
    try:
        if now.revision != revision:
            raise LostRace("the broker was changed while you were editing it")
        names = changed(values, shown(now))
        given = body(form, names)
        names |= given.keys()
        answer: Any = await brokers.update_broker.fn(
            request,
            broker_id,
            data=body_of(brokers.update_broker, given),
            if_revision=[revision],
            dry_run=dry_run,
        )
    except LostRace as error:
        return await _lost(request, broker_id, form, error, dry_run=dry_run)
    except MooringError as error:
        problem = problem_of(request, error)
        return await settings_page(
            request,
            now,
            values=values,
            names=frozenset(names or changed(values, shown(now))),
            problem=problem,
            status=200 if dry_run else problem.status,
        )
    if dry_run:
        return await settings_page(
            request,
            now,
            values=values,
            names=frozenset(names),
            warnings=answer.content.warnings,
        )
    return see_other(path_of(broker_id), saved="true")


async def _lost(
    request: ConsoleRequest, broker_id: int, form: Form, error: LostRace, *, dry_run: bool
) -> Response[bytes]:
    """Both versions: what the person changed stays in the form, all else is as it is now."""
    problem = problem_of(request, error)
    now = await broker_of(request, broker_id)
    values, stored = typed(form), shown(now)
    try:
        then = shown(
            await broker_history.get_broker_revision.fn(
                request, broker_id, revision=seen_revision(form)[0]
            )
        )
    except NotFound:
        then = {}
    mine = changed(values, then)
    theirs = {name: (then.get(name, ""), stored[name]) for name in changed(stored, then)}
    kept = {name: value for name, value in values.items() if name in mine or name not in stored}
    return await settings_page(
        request,
        now,
        values=kept | {"ca_cert": values.get("ca_cert", "")},
        names=frozenset(name for name in mine if values[name] != stored[name]),
        problem=problem,
        status=200 if dry_run else problem.status,
        theirs=theirs,
    )
