"""API tokens: the list, a new one, how to revoke one, and the token of the visitor."""

from datetime import UTC, datetime
from typing import Any

from litestar import Response, Router, get, post

from chassis.errors import MooringError
from chassis.trust import Access, WithinFleets
from gateway.administration import tokens
from gateway.administration.listing import Cursor
from gateway.administration.tokens import TokenId
from gateway.console.changes import (
    errors_of,
    lines_of,
    moment_in,
    own_address,
    problem_in_place,
    typed_in,
)
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import page, see_other
from gateway.console.visitor import ConsoleRequest, permitted, visitor_of
from gateway.problems import Problem

ON_A_PAGE = 50
FIELDS = ("name", "role", "expires_at", "fleet_ids", "max_devices")
HOME = "/console/tokens"


def state_of(token: Any, now: datetime) -> tuple[str, str, str]:
    """The kind, the word and the icon of a token's state."""
    if not token.is_active:
        return "off", "Revoked", "x"
    if token.expires_at is not None and token.expires_at <= now:
        return "off", "Expired", "clock"
    return "ok", "Valid", "check"


@get("/", access=Access.ADMIN)
async def token_list(request: ConsoleRequest, cursor: Cursor = "") -> Response[bytes]:
    """A page of tokens."""
    listed: Any = await tokens.list_tokens.fn(request, limit=ON_A_PAGE, cursor=cursor)
    now = datetime.now(UTC)
    visitor = visitor_of(request)
    return page(
        request,
        "tokens.html",
        tokens=[(token, state_of(token, now)) for token in listed.items],
        next_cursor=listed.next_cursor,
        own_id=visitor.actor.id,
        may_create=visitor.may(tokens.create_token),
    )


def _form(
    request: ConsoleRequest, texts: dict[str, str], problem: Problem | None = None
) -> Response[bytes]:
    return page(
        request,
        "token_new.html",
        status=problem.status if problem else 200,
        texts=texts,
        problem=problem,
        errors=errors_of(problem) if problem else {},
    )


@get("/new", access=Access.ADMIN, guards=[permitted])
async def new_token(request: ConsoleRequest) -> Response[bytes]:
    """The form for a new token."""
    return _form(request, {**dict.fromkeys(FIELDS, ""), "role": "viewer"})


@post("/", access=Access.ADMIN, action="token.create", status_code=200)
async def create_token(request: ConsoleRequest) -> Response[bytes]:
    """Makes a token. The answer is the only page that shows it."""
    form = await form_of(request)
    try:
        made = await tokens.create_token.fn(request, body_of(tokens.create_token, _values(form)))
    except MooringError as error:
        problem = problem_in_place(request, error)
        return _form(request, typed_in(form, FIELDS), problem)
    return page(request, "token_made.html", token=made, address=own_address(request))


def _values(form: Form) -> dict[str, Any]:
    return {
        "name": form.text("name"),
        "role": form.text("role"),
        "expires_at": moment_in(form, "expires_at"),
        "fleet_ids": lines_of(form, "fleet_ids") or None,
        "max_devices": form.number("max_devices"),
    }


@get("/self", access=WithinFleets(Access.VIEWER))
async def own_token(request: ConsoleRequest) -> Response[bytes]:
    """The token of the visitor, and what it may do."""
    token = await tokens.get_own_token.fn(request)
    return _one(request, token)


@get("/{token_id:str}", access=Access.ADMIN)
async def one_token(request: ConsoleRequest, token_id: TokenId) -> Response[bytes]:
    """A token, without its secret."""
    return _one(request, await tokens.get_token.fn(request, token_id))


def _one(request: ConsoleRequest, token: Any, problem: Problem | None = None) -> Response[bytes]:
    visitor = visitor_of(request)
    return page(
        request,
        "token.html",
        status=problem.status if problem else 200,
        token=token,
        state=state_of(token, datetime.now(UTC)),
        is_own=token.id == visitor.actor.id,
        ends_at=visitor.ends_at,
        may_list=visitor.may(tokens.list_tokens),
        may_revoke=visitor.may(tokens.revoke_token) and token.is_active,
        problem=problem,
    )


@get("/{token_id:str}/revoke", access=Access.ADMIN, guards=[permitted])
async def revoking(request: ConsoleRequest, token_id: TokenId) -> Response[bytes]:
    """Says what revoking the token does, and asks."""
    token = await tokens.get_token.fn(request, token_id)
    is_own = token.id == visitor_of(request).actor.id
    return page(request, "token_revoke.html", token=token, is_own=is_own)


@post("/{token_id:str}/revoke", access=Access.ADMIN, action="token.revoke", status_code=200)
async def revoke_token(request: ConsoleRequest, token_id: TokenId) -> Response[Any]:
    """Revokes the token at once."""
    await form_of(request)
    try:
        await tokens.revoke_token.fn(request, token_id)
    except MooringError as error:
        problem = problem_in_place(request, error)
        return _one(request, await tokens.get_token.fn(request, token_id), problem)
    return see_other(HOME)


ROUTES = Router(
    "/tokens",
    route_handlers=[
        token_list,
        new_token,
        create_token,
        own_token,
        one_token,
        revoking,
        revoke_token,
    ],
)
