"""The processes of the installation: which there are, how they do, and their configuration."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from litestar import Response, Router, get
from litestar.params import QueryParameter

from chassis.trust import Access
from chassis.version import VERSION
from gateway.administration import system
from gateway.administration.listing import Cursor
from gateway.administration.system import Process
from gateway.console.changes import own_address
from gateway.console.pages import page
from gateway.console.process_words import SERVING, problems_of, state_of, state_of_loop
from gateway.console.visitor import ConsoleRequest

ON_A_PAGE = 50


@dataclass(frozen=True, slots=True)
class Line:
    """A process as the page shows it."""

    process: Process
    state: tuple[str, str, str]
    problems: list[str]
    # Whether the gateway that shows the page has another version.
    is_other_version: bool


@get("/", access=Access.VIEWER)
async def process_list(
    request: ConsoleRequest,
    cursor: Cursor = "",
    in_state: Annotated[
        Literal["running", "lost", "ended"], QueryParameter(name="state")
    ] = "running",
) -> Response[bytes]:
    """A page of the processes that run, after all with a problem; or of those that are gone."""
    found, listed = await asyncio.gather(
        _with_problem(request, is_wanted=in_state == "running" and not cursor),
        system.list_processes.fn(request, limit=ON_A_PAGE, cursor=cursor, in_state=in_state),
    )
    first = {process.id for process in found}
    now = datetime.now(UTC)
    lines = [
        Line(process, state_of(process), problems_of(process, now), process.version != VERSION)
        for process in (*found, *(each for each in listed.items if each.id not in first))
    ]
    return page(
        request,
        "system.html",
        lines=lines,
        in_state=in_state,
        next_cursor=listed.next_cursor,
        version=VERSION,
        others=sum(line.is_other_version for line in lines if line.process.state == "running"),
        state_of_loop=state_of_loop,
        serving=SERVING,
        address=own_address(request),
    )


async def _with_problem(request: ConsoleRequest, *, is_wanted: bool) -> list[Process]:
    """The processes that a person should look at, whatever their state."""
    if not is_wanted:
        return []
    listed: Any = await system.list_processes.fn(request, limit=ON_A_PAGE, has_problem=True)
    found: list[Process] = listed.items
    return found


ROUTES = Router("/system", route_handlers=[process_list])
