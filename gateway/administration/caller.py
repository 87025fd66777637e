"""The caller: the gateway gets a ticket for the API token, and sends it with every gRPC call."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from chassis.bearer import bearer
from chassis.client import ServiceClient
from chassis.errors import MooringError
from gateway.addresses import client_of
from gateway.context import context_of
from gateway.service_clients import ServiceClients

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Method = grpc.aio.UnaryUnaryMultiCallable
StreamOf = grpc.aio.UnaryStreamMultiCallable

# A ticket is valid for a minute; after this time the gateway gets a new one.
RENEW_S = 30.0


class Caller:
    """The owner of a valid token, for one request."""

    def __init__(
        self,
        services: ServiceClients,
        ticket: bytes,
        deadline: float,
        authenticate: Callable[[float], Awaitable[bytes]],
        *,
        asked_at: float | None = None,
    ) -> None:
        """`deadline` is a time of the running loop's clock. `authenticate` takes a deadline and
        gets a ticket; it raises the errors of `Attempts.authenticate`. `asked_at` is the time of
        `ticket`, by default now.
        """
        self.services = services
        self._ticket = ticket
        self._asked_at = asyncio.get_running_loop().time() if asked_at is None else asked_at
        self._deadline = deadline
        self._authenticate = authenticate
        # The last refusal by a service. The service has recorded it in the audit log.
        self.heard: MooringError | None = None

    def until(self, deadline: float) -> "Caller":
        """The same caller with another deadline."""
        return Caller(
            self.services, self._ticket, deadline, self._authenticate, asked_at=self._asked_at
        )

    async def again(self, deadline: float) -> "Caller":
        """The same caller with a new ticket and another deadline, for work that takes longer than a
        request may. The token may have been revoked meanwhile. Raises `Unauthenticated`, and the
        errors of the registry.
        """
        ticket = await self._authenticate(deadline)
        return Caller(self.services, ticket, deadline, self._authenticate)

    async def ask_registry(self, method: Method[Question, Answer], question: Question) -> Answer:
        """Calls the registry for this caller. Raises the `MooringError` of the registry."""
        return await self._ask(self.services.registry, method, question)

    async def ask_broker_service(
        self, method: Method[Question, Answer], question: Question
    ) -> Answer:
        """Calls the broker service for this caller. Raises the `MooringError` of the service."""
        return await self._ask(self.services.broker, method, question)

    async def follow_broker_service(
        self, method: StreamOf[Question, Answer], question: Question, *, within_s: float
    ) -> AsyncIterator[Answer]:
        """The answers of the broker service as they arrive. Raises the `MooringError` of the
        service.
        """
        deadline = asyncio.get_running_loop().time() + within_s
        try:
            async for answer in self.services.broker.stream(
                method, question, deadline=deadline, ticket=await self._fresh_ticket()
            ):
                yield answer
        except MooringError as error:
            self.heard = error
            raise

    async def _ask(
        self, client: ServiceClient, method: Method[Question, Answer], question: Question
    ) -> Answer:
        try:
            return await client.call(
                method, question, deadline=self._deadline, ticket=await self._fresh_ticket()
            )
        except MooringError as error:
            self.heard = error
            raise

    async def _fresh_ticket(self) -> bytes:
        """The ticket; a new one if receiving the body took long."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_at >= RENEW_S:
            self._ticket = await self._authenticate(self._deadline)
            self._asked_at = now
        return self._ticket


CallerRequest = Request[Any, Caller, State]


async def authenticate(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Requires a valid token before the body is read. The handler finds a `Caller` in
    `request.auth`.
    """
    context = context_of(connection)
    deadline = asyncio.get_running_loop().time() + context.timeout_s
    headers = list(connection.scope["headers"])
    secret = bearer(headers)
    client = client_of(connection.scope["client"], headers, context.proxies)

    async def ticket_by(deadline: float) -> bytes:
        return await context.attempts.authenticate(secret, client, deadline)

    ticket = await ticket_by(deadline)
    connection.scope["auth"] = Caller(context.services, ticket, deadline, ticket_by)
