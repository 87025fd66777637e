"""The common state of the connections of one HTTP server."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from uvicorn.config import Config
from uvicorn.server import ServerState

from chassis.direct_http import Handlers, Reply
from chassis.http_limits import Connections, HttpLimits


@dataclass(frozen=True, slots=True)
class Context:
    """The server's configuration and its state."""

    config: Config
    state: ServerState
    handlers: Handlers
    limits: HttpLimits
    connections: Connections
    # The answer to requests that cannot be read or arrive too slowly: 400, 408, 431 or 500.
    refusal: Callable[[int], Reply]
    # Set when the process is about to stop.
    leaving: asyncio.Event
