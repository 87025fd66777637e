"""The objects of one gateway. Each request carries them, because all gateways of a process share
the routes.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from litestar import Request, Response
from litestar.connection import ASGIConnection

from gateway.addresses import Network
from gateway.administration.attempts import Attempts
from gateway.changes import Changes
from gateway.problems import Problem
from gateway.service_clients import ServiceClients
from gateway.streams import Streams

KEY = "gateway"
# Whether the client sent HEAD, for routes whose answer to GET does not end.
IS_HEAD = "is_head"

# Called for each refusal, with the request, its error and the answer.
Noting = Callable[[Request[Any, Any, Any], Any, Response[Problem]], None]


@dataclass(frozen=True)
class Context:
    """The objects of one gateway; `app.app_of` documents them."""

    services: ServiceClients
    timeout_s: float
    leaving: asyncio.Event
    attempts: Attempts
    proxies: Sequence[Network]
    note: Noting | None
    changes: Changes
    streams: Streams = field(default_factory=Streams)
    # Where people reach this gateway, if it is configured: https://mooring.example.com.
    public_url: str = ""
    # Where brokers ask about clients, if it is configured.
    access_url: str = ""
    # Locked while a request makes the OpenAPI document.
    documenting: asyncio.Lock = field(default_factory=asyncio.Lock)


def context_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Context:
    """The context of the gateway that serves the request."""
    found: Context = connection.scope["state"][KEY]
    return found


def is_head(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether the client sent HEAD: handlers are called as for GET."""
    return bool(connection.scope["state"].get(IS_HEAD))
