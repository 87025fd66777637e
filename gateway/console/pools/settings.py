"""The settings and members of a pool, and its rebalancing. A change of members is shown in numbers
before it is saved.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from litestar import Response, get, post
from litestar.params import FromQuery

from chassis.errors import MooringError
from chassis.trust import Access, WithinFleets
from gateway.administration import pools
from gateway.administration.fields import PathId
from gateway.administration.pool_types import ChangedPool
from gateway.console.broker_names import broker_names
from gateway.console.changes import (
    changed_since,
    errors_of,
    lost_in,
    problem_in_place,
    seen_revision,
)
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import see_other
from gateway.console.pools.fields import (
    POLICIES,
    Row,
    changed,
    lines,
    rows_in,
    rows_of,
    seen_of,
    texts_in,
    texts_of,
)
from gateway.console.pools.shell import path_of, pool_of, pool_page
from gateway.console.rollouts import percent_in
from gateway.console.visitor import ConsoleRequest
from gateway.problems import Problem

# The percents that a rebalancing usually goes through.
WAVES = (1, 10, 50, 100)


async def shown(
    request: ConsoleRequest,
    pool_id: int,
    *,
    typed: dict[str, str] | None = None,
    rows: Sequence[Row] | None = None,
    problem: Problem | None = None,
    lost: Form | None = None,
    preview: ChangedPool | None = None,
    is_saved: bool = False,
) -> Response[bytes]:
    """The page of a pool, with what was typed. `problem` is why a form was refused; if another
    person was first, `lost` is the form. `preview` is what the form would do.
    """
    pool, names = await asyncio.gather(pool_of(request, pool_id), broker_names(request))
    now, seen = rows_of(pool), seen_of(pool)
    rows = now if rows is None else rows
    there = {row.id for row in rows}
    return pool_page(
        request,
        "pool_settings.html",
        pool,
        status=problem.status if problem else 200,
        brokers=names,
        others=[(id_, name) for id_, name in names.names.items() if id_ not in there],
        texts={**texts_of(pool), "percent": "", **(typed or {})},
        rows=rows,
        policies=POLICIES,
        previewed=lines(rows) if preview else "",
        preview=preview,
        waves=WAVES,
        race=changed_since(
            lost, seen, {**(typed or {}), "members": lines(rows)} if typed else {}, names
        ),
        is_typed=bool(typed),
        problem=problem,
        errors=errors_of(problem) if problem else {},
        is_saved=is_saved,
    )


async def refused(
    request: ConsoleRequest,
    pool_id: int,
    form: Form,
    error: MooringError,
    *,
    typed: dict[str, str] | None = None,
    rows: Sequence[Row] | None = None,
) -> Response[bytes]:
    """The page of a pool after a form was refused, with what was typed. Raises `error` again if it
    needs a page of its own.
    """
    problem = problem_in_place(request, error)
    lost = lost_in(form, error)
    return await shown(request, pool_id, typed=typed, rows=rows, problem=problem, lost=lost)


@get("/{pool_id:int}", access=WithinFleets(Access.VIEWER))
async def one_pool(
    request: ConsoleRequest, pool_id: PathId, saved: FromQuery[Literal["", "yes"]] = ""
) -> Response[bytes]:
    """A pool with its settings and members."""
    return await shown(request, pool_id, is_saved=bool(saved))


@post("/{pool_id:int}", access=Access.OPERATOR, action="pool.update", status_code=200)
async def update_pool(request: ConsoleRequest, pool_id: PathId) -> Response[Any]:
    """Changes what the person changed. New members or weights are saved only if the page has shown
    what they would move.
    """
    form = await form_of(request)
    typed, rows = texts_in(form), rows_in(form)
    try:
        values = changed(form)
        if values:
            change, revision = body_of(pools.update_pool, values), seen_revision(form)
            is_new = "members" in values and _lines(form.text("previewed")) != _lines(lines(rows))
            if is_new or "look" in form:
                dry: Any = await pools.update_pool.fn(
                    request, pool_id, change, if_revision=revision, dry_run=True
                )
                return await shown(request, pool_id, typed=typed, rows=rows, preview=dry.content)
            await pools.update_pool.fn(request, pool_id, change, if_revision=revision)
    except MooringError as error:
        return await refused(request, pool_id, form, error, typed=typed, rows=rows)
    return see_other(path_of(pool_id), saved="yes")


def _lines(text: str) -> list[str]:
    """The lines of a text. Browsers send other line breaks than the page has."""
    return text.splitlines()


@post("/{pool_id:int}/rebalance", access=Access.OPERATOR, action="pool.rebalance", status_code=200)
async def rebalance_pool(request: ConsoleRequest, pool_id: PathId) -> Response[Any]:
    """Begins a rebalancing, or takes it to another percent."""
    form = await form_of(request)
    try:
        change = body_of(pools.rebalance_pool, {"percent": percent_in(form)})
        await pools.rebalance_pool.fn(request, pool_id, change, if_revision=seen_revision(form))
    except MooringError as error:
        typed = {"percent": form.text("percent")}
        return await refused(request, pool_id, form, error, typed=typed)
    return see_other(path_of(pool_id))


@post(
    "/{pool_id:int}/rebalance/stop",
    access=Access.OPERATOR,
    action="pool.stop_rebalancing",
    status_code=200,
)
async def stop_rebalancing(request: ConsoleRequest, pool_id: PathId) -> Response[Any]:
    """Ends the rebalancing."""
    form = await form_of(request)
    try:
        revision = seen_revision(form)
        await pools.stop_pool_rebalancing.fn(request, pool_id, if_revision=revision)
    except MooringError as error:
        return await refused(request, pool_id, form, error)
    return see_other(path_of(pool_id))
