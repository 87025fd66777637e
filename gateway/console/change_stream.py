"""The stream of changes for the pages: one for all tabs of a browser, see assets/changes.js."""

from typing import Any

from litestar import Response, get

from chassis.trust import Access, WithinFleets
from gateway.administration.change_stream import LastEventId, follow_changes
from gateway.console.visitor import OF_SCRIPTS, ConsoleRequest


@get("/changes", access=WithinFleets(Access.VIEWER), opt={OF_SCRIPTS: True})
async def page_changes(request: ConsoleRequest, last_event_id: LastEventId = "") -> Response[Any]:
    """The stream of the JSON route, for the owner of a session. It ends with the session."""
    answer: Response[Any] = await follow_changes.fn(request, last_event_id)
    answer.headers["Cache-Control"] = "no-store"
    return answer
