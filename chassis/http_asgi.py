"""Serves requests of an `HttpConnection` with ASGI, by uvicorn's cycle."""

import asyncio
from typing import Any, Protocol, cast
from urllib.parse import quote

import structlog
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from chassis.direct_http import Connection, Head
from chassis.http_context import Context

log = structlog.get_logger(__name__)


class AsgiConnection(Connection, Protocol):
    """The part of a connection that these requests use."""

    context: Context
    flow: FlowControl
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str


class AsgiCycle(RequestResponseCycle):
    """A request that ASGI serves. Its connection ends in the same way as for other requests."""

    def __init__(
        self, connection: AsgiConnection, head: Head, version: str, *, expects: bool
    ) -> None:
        """`expects` says whether the client waits for `100 Continue` before it sends the body."""
        self._connection = connection
        config = connection.context.config
        super().__init__(
            scope={
                "type": "http",
                "asgi": {"version": config.asgi_version, "spec_version": "2.3"},
                "http_version": version,
                "server": connection.server,
                "client": connection.client,
                "scheme": cast("Any", connection.scheme),
                "root_path": "",
                "headers": head.headers,
                "state": {},
                "method": head.method.decode("ascii"),
                "path": head.path.decode(errors="replace"),
                "raw_path": quote(head.path, safe="/%").encode(),
                "query_string": head.query,
            },
            transport=cast("asyncio.Transport", _Closing(connection)),
            flow=connection.flow,
            logger=cast("Any", _Log()),
            access_logger=cast("Any", None),
            access_log=False,
            default_headers=connection.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects,
            keep_alive=connection.is_kept_alive(),
            on_response=connection.on_response_complete,
        )

    def begin(self) -> None:
        """Starts the task of this request."""
        context = self._connection.context
        task = asyncio.get_running_loop().create_task(
            self.run_asgi(cast("Any", context.config.loaded_app))
        )
        task.add_done_callback(context.state.tasks.discard)
        context.state.tasks.add(task)

    async def send(self, message: Any) -> None:
        """Adds `Connection: close` if the body was not read."""
        starts = not self.response_started and message["type"] == "http.response.start"
        if starts and self.more_body and self._connection.ends_after(self):
            self.keep_alive = False
        await super().send(message)

    @property
    def expects_continue(self) -> bool:
        """Whether the client still waits before it sends the body."""
        return self.waiting_for_100_continue


class _Closing:
    """The transport that the cycle gets. Closing it ends the connection in order."""

    def __init__(self, connection: AsgiConnection) -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.end


class _Log:
    """Sends messages of uvicorn's cycle about the application to Mooring's log."""

    def error(self, message: str, *values: Any, exc_info: Any = None) -> None:
        """Logs a fault of the application."""
        log.error((message % values).strip(), exc_info=exc_info)
