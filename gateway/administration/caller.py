"""Who asks: an API token becomes a name and a role that go with every question."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from mooring.registry.v1 import tokens_pb2

from chassis.bearer import bearer
from chassis.client import Neighbour
from chassis.errors import MooringError
from chassis.trust import Access, Actor
from gateway.addresses import Network, client_of
from gateway.administration.attempts import Attempts
from gateway.limits import Limits
from gateway.neighbours import Neighbours

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Method = grpc.aio.UnaryUnaryMultiCallable

ACCESS_OF_ROLE: dict[int, Access] = {
    tokens_pb2.ROLE_VIEWER: Access.VIEWER,
    tokens_pb2.ROLE_OPERATOR: Access.OPERATOR,
    tokens_pb2.ROLE_ADMIN: Access.ADMIN,
}


class Caller:
    """Somebody who has shown a token, for the length of one request."""

    def __init__(
        self,
        neighbours: Neighbours,
        actor: Actor,
        deadline: float,
        authenticate: Callable[[float], Awaitable[Actor]],
    ) -> None:
        """`deadline` is a time of the running loop's clock; `authenticate` asks who it is by then.

        It raises as `Attempts.authenticate` does.
        """
        self.neighbours = neighbours
        self._actor = actor
        self._deadline = deadline
        self._authenticate = authenticate
        # What a service refused last: it has noted that itself.
        self.heard: MooringError | None = None

    def until(self, deadline: float) -> "Caller":
        """The same one with another deadline."""
        return Caller(self.neighbours, self._actor, deadline, self._authenticate)

    async def again(self, deadline: float) -> "Caller":
        """The same one with another deadline, for what takes longer than a request may.

        Their token may have been revoked meanwhile. Raises `Unauthenticated`, or what the registry
        raises.
        """
        actor = await self._authenticate(deadline)
        return Caller(self.neighbours, actor, deadline, self._authenticate)

    async def ask_registry(self, method: Method[Question, Answer], question: Question) -> Answer:
        """Asks in their name. Raises the `MooringError` that the service raised."""
        return await self._ask(self.neighbours.registry, method, question)

    async def ask_broker_service(
        self, method: Method[Question, Answer], question: Question
    ) -> Answer:
        """Asks in their name. Raises the `MooringError` that the service raised."""
        return await self._ask(self.neighbours.broker, method, question)

    async def _ask(
        self, neighbour: Neighbour, method: Method[Question, Answer], question: Question
    ) -> Answer:
        try:
            return await neighbour.call(
                method, question, deadline=self._deadline, actor=self._actor
            )
        except MooringError as error:
            self.heard = error
            raise


CallerRequest = Request[Any, Caller, State]


def authentication(
    neighbours: Neighbours,
    limits: Limits | None,
    timeout_s: float,
    proxies: Sequence[Network] = (),
) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]:
    """A guard: no body is read for somebody unknown. The handler finds a `Caller` in `auth`.

    `limits` counts the attempts that fail; `proxies` are trusted to say whose they are.
    """
    attempts = Attempts(neighbours, limits)

    async def authenticate(
        connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler
    ) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        secret = bearer(connection.scope["headers"])
        client = client_of(connection.scope["client"], list(connection.scope["headers"]), proxies)

        async def actor_by(deadline: float) -> Actor:
            token = await attempts.authenticate(secret, client, deadline)
            return Actor(
                token.name,
                ACCESS_OF_ROLE.get(token.role, Access.OPEN),
                token.id,
                frozenset(token.fleets.ids) if token.HasField("fleets") else None,
            )

        actor = await actor_by(deadline)
        connection.scope["auth"] = Caller(neighbours, actor, deadline, actor_by)

    return authenticate
