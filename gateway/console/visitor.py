"""The person at the console: their session, and what they may do."""

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime
from http.cookies import SimpleCookie
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie, State
from litestar.handlers import BaseRouteHandler
from mooring.registry.v1 import sessions_pb2, tokens_pb2

from chassis.errors import Unauthenticated
from chassis.times import moment_of
from chassis.trust import Access, Actor, WithinFleets, access_of
from gateway.access import required
from gateway.addresses import client_of
from gateway.administration.caller import Caller
from gateway.console.same_origin import (
    SAFE_METHODS,
    form_token_of,
    require_own_host,
    require_own_page,
)
from gateway.context import Context, context_of

VISITOR = "visitor"
# The position in the stream of changes before the page was made.
POSITION = "position"
# Set by the console's own scripts for requests that no person made.
IN_THE_BACKGROUND = "mooring-background"
# The option of a route that no person asks for.
OF_SCRIPTS = "of_scripts"
ROLES = {
    tokens_pb2.ROLE_VIEWER: Access.VIEWER,
    tokens_pb2.ROLE_OPERATOR: Access.OPERATOR,
    tokens_pb2.ROLE_ADMIN: Access.ADMIN,
}


@dataclass(frozen=True)
class Visitor:
    """The owner of a valid session, for one request."""

    actor: Actor
    # Forms contain it: `same_origin.form_token_of`.
    form_token: str
    # When the session ends, whether it is used or not.
    ends_at: datetime | None

    @property
    def initials(self) -> str:
        """At most two letters of the token's name."""
        words = re.findall(r"[^\W_]+", self.actor.name)
        return "".join(word[0].upper() for word in words[:2])

    def may(self, handler: BaseRouteHandler) -> bool:
        """Whether the person may use a JSON route, by the policy that the route states."""
        policy = handler.opt["access"]
        is_within = self.actor.fleets is None or isinstance(policy, WithinFleets)
        return is_within and self.actor.role >= access_of(policy)


ConsoleRequest = Request[Any, Caller, State]


def visitor_of(request: ConsoleRequest) -> Visitor:
    """The person who sent the request."""
    found: Visitor = request.scope["state"][VISITOR]
    return found


async def signed_in(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Requires a valid session, and for a change the right to it, before the body is read.

    The handler finds a `Caller` in `request.auth`, as routes for API tokens do, and a `Visitor` by
    `visitor_of`. Raises `ForeignOrigin`, `SessionEnded`, `RateLimited`, `Forbidden`, or what the
    registry raises.
    """
    context = context_of(connection)
    await from_own_page(connection, handler)
    secret = session_secret_of(connection)
    if not secret:
        raise Unauthenticated("sign in first", reason="SESSION_ENDED")
    headers = list(connection.scope["headers"])
    client = client_of(connection.scope["client"], headers, context.proxies)
    deadline = asyncio.get_running_loop().time() + context.timeout_s
    is_use = IN_THE_BACKGROUND not in connection.headers and not handler.opt.get(OF_SCRIPTS)
    position = context.changes.position

    async def answer_by(deadline: float) -> sessions_pb2.AuthenticateSessionResponse:
        return await context.attempts.session(secret, client, deadline, is_use=is_use)

    async def ticket_by(deadline: float) -> bytes:
        return (await answer_by(deadline)).ticket

    answer = await answer_by(deadline)
    token = answer.token
    connection.scope["auth"] = Caller(context.services, answer.ticket, deadline, ticket_by)
    if not token.HasField("fleets"):
        # It tells how much has changed, in all fleets.
        connection.scope["state"][POSITION] = position
    connection.scope["state"][VISITOR] = Visitor(
        Actor(
            token.name,
            ROLES[token.role],
            token.id,
            frozenset(token.fleets.ids) if token.HasField("fleets") else None,
        ),
        form_token_of(secret),
        moment_of(answer.session, "ends_at"),
    )
    if connection.scope.get("method") not in SAFE_METHODS:
        # Before the form is read: a person without the right learns nothing from its faults.
        await permitted(connection, handler)


async def permitted(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Requires the role that a page states. For pages that ask no service whether the person may
    do what they offer: forms, and confirmations. Raises `Forbidden`.
    """
    visitor: Visitor = connection.scope["state"][VISITOR]
    visitor.actor.require(required(handler.opt["access"]))


async def from_own_page(
    connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler
) -> None:
    """Raises `ForeignOrigin` for another host, and for a change by a page of another origin."""
    context = context_of(connection)
    scheme = connection.scope["scheme"]
    require_own_host(scheme, connection.headers.get("host", ""), context.public_url)
    if connection.scope.get("method") not in SAFE_METHODS:
        require_own_page(connection.headers, scheme, context.public_url)


def is_secure(connection: ASGIConnection[Any, Any, Any, Any], context: Context) -> bool:
    """Whether the browser speaks TLS, to the gateway or to a proxy in front of it."""
    return connection.scope["scheme"] == "https" or context.public_url.startswith("https://")


def cookie_name(*, secure: bool) -> str:
    """With `__Host-`, browsers accept it from this host only, under TLS only (RFC 6265bis)."""
    return "__Host-mooring-session" if secure else "mooring-session"


def session_secret_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The secret in the session cookie; empty if there is none or more than one."""
    name = cookie_name(secure=is_secure(connection, context_of(connection)))
    found = [
        morsel.value
        for line in connection.headers.getall("cookie", [])
        for part in line.split(";")
        for key, morsel in SimpleCookie(part.strip()).items()
        if key == name
    ]
    return found[0] if len(found) == 1 else ""


def session_cookie(connection: ASGIConnection[Any, Any, Any, Any], secret: str) -> Cookie:
    """The cookie with a session's secret, which ends with the browser; an empty one removes it."""
    secure = is_secure(connection, context_of(connection))
    return Cookie(
        key=cookie_name(secure=secure),
        value=secret,
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
        max_age=None if secret else 0,
    )
