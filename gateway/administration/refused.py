"""Sends refusals by the gateway itself to the registry, for the audit log. A service records its
own refusals. Some requests reach no service, because the gateway refuses them (for example a body
that is too large, or a port of 70000). The gateway sends such a refusal to the registry if the
caller has a valid token and the request would change something.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
from litestar import Request, Response
from litestar.types import ExceptionHandlersMap
from mooring.registry.v1 import audit_pb2
from prometheus_client import Counter

from chassis.errors import MooringError
from gateway.administration.caller import Caller
from gateway.context import context_of
from gateway.problems import Problem

log = structlog.get_logger(__name__)

# The most calls under way. Further refusals are only counted.
MAX_UNDER_WAY = 32
SEND_S = 2.0

LOST = Counter("mooring_gateway_refusals_lost_total", "Refusals that the audit log does not have")

# Query parameters that are read as true.
TRUE = frozenset({"true", "1"})

Handler = Callable[[Request[Any, Any, Any], Any], Response[Problem]]


class RefusedRequests:
    """Sends refusals in the background. No answer waits for that, or fails with it."""

    def __init__(self) -> None:
        """No call is under way."""
        self._sending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Waits for the calls under way, whose deadlines are short."""
        await asyncio.gather(*self._sending)

    def note(
        self, request: Request[Any, Any, Any], error: Exception, response: Response[Problem]
    ) -> None:
        """Sends the refusal to the registry, if `response` to `error` refuses a change."""
        caller = request.scope.get("auth")
        action = request.scope["route_handler"].opt.get("action") if caller else None
        is_dry_run = request.query_params.get("dry_run", "").lower() in TRUE
        if is_dry_run and response.content.status != HTTPStatus.FORBIDDEN:
            # It would have changed nothing.
            return
        if action and 400 <= response.content.status < 500 and error is not caller.heard:
            subject = next(map(str, request.scope["path_params"].values()), "")
            self._note(caller, action, subject, response.content.reason)

    def _note(self, caller: Caller, action: str, subject: str, reason: str) -> None:
        if len(self._sending) >= MAX_UNDER_WAY:
            LOST.inc()
            return
        question = audit_pb2.NoteRefusalRequest(action=action, subject=subject, reason=reason)
        task = asyncio.create_task(_send(caller, question))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


def recording_refusals(handlers: ExceptionHandlersMap) -> ExceptionHandlersMap:
    """The exception handlers, changed so that they also record refusals."""
    return {kind: partial(_handled, handler) for kind, handler in handlers.items()}


def _handled(
    handler: Handler, request: Request[Any, Any, Any], error: Exception
) -> Response[Problem]:
    response = handler(request, error)
    if note := context_of(request).note:
        note(request, error, response)
    return response


async def _send(caller: Caller, question: audit_pb2.NoteRefusalRequest) -> None:
    patient = caller.until(asyncio.get_running_loop().time() + SEND_S)
    try:
        await patient.ask_registry(caller.services.audit.NoteRefusal, question)
    except MooringError as error:
        LOST.inc()
        log.warning("a refusal is not in the audit log", reason=error.reason)
