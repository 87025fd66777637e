"""Signing in with a token or a sign-in code, and signing out."""

import asyncio
from typing import Annotated, Any

from litestar import Request, Response, Router, get, post
from litestar.params import FromPath, QueryParameter
from mooring.registry.v1 import sessions_pb2

from chassis.errors import MooringError, Unauthenticated
from chassis.trust import Access, WithinFleets
from gateway.addresses import client_of
from gateway.administration.caller import Caller
from gateway.console.forms import form_of, parsed
from gateway.console.pages import BY_SCRIPT, page, see_other
from gateway.console.same_origin import form_token_of
from gateway.console.visitor import (
    ConsoleRequest,
    from_own_page,
    session_cookie,
    session_secret_of,
)
from gateway.context import context_of
from gateway.problems import of_error

HOME = "/console"
AnyRequest = Request[Any, Any, Any]
NextPath = Annotated[str, QueryParameter(name="next", max_length=4_000)]


def _own_path(path: str) -> str:
    """`path` if it is one of the console, else its first page: links may come from elsewhere."""
    is_own = path == HOME or path.startswith((f"{HOME}/", f"{HOME}?"))
    return path if is_own and path.isprintable() and "\\" not in path else HOME


@get("/sign-in", access=Access.OPEN)
async def sign_in_page(request: AnyRequest, next_path: NextPath = "") -> Response[bytes]:
    """The form."""
    return page(
        request, "sign_in.html", next=_own_path(next_path), problem=None, is_again=bool(next_path)
    )


@post("/sign-in", access=Access.OPEN, status_code=200)
async def sign_in(request: AnyRequest) -> Response[Any]:
    """Begins a session for the token in the form. A script gets the new form token as JSON."""
    form = parsed(request.headers.get("content-type", ""), await request.body())
    context = context_of(request)
    deadline = asyncio.get_running_loop().time() + context.timeout_s
    client = client_of(request.scope["client"], list(request.scope["headers"]), context.proxies)
    to = _own_path(form.text("next"))
    try:
        token = form.text("token")
        if not token:
            raise Unauthenticated("enter your API token")
        ticket = await context.attempts.authenticate(token, client, deadline)
    except MooringError as error:
        found = of_error(error)
        is_by_script = any(name in request.headers for name in BY_SCRIPT)
        answer = page(
            request,
            "sign_in.html",
            status=found.content.status if is_by_script else 200,
            next=to,
            problem=found.content,
            is_again=False,
        )
        if "Retry-After" in found.headers:
            answer.headers["Retry-After"] = found.headers["Retry-After"]
        return answer
    return await _begun(request, ticket, deadline, to)


@get("/sign-in/{code:str}", access=Access.OPEN)
async def sign_in_code_page(request: AnyRequest, code: FromPath[str]) -> Response[bytes]:
    """A button. Programs follow links before people do, so following this one consumes nothing."""
    return page(request, "sign_in_code.html", code=code, problem=None)


@post("/sign-in/{code:str}", access=Access.OPEN, status_code=200)
async def sign_in_by_code(request: AnyRequest, code: FromPath[str]) -> Response[Any]:
    """Consumes the code and begins a session for the owner of its token."""
    context = context_of(request)
    deadline = asyncio.get_running_loop().time() + context.timeout_s
    client = client_of(request.scope["client"], list(request.scope["headers"]), context.proxies)
    try:
        ticket = await context.attempts.sign_in_code(code, client, deadline)
    except MooringError as error:
        found = of_error(error)
        return page(request, "sign_in_code.html", code="", problem=found.content)
    return await _begun(request, ticket, deadline, HOME)


async def _begun(request: AnyRequest, ticket: bytes, deadline: float, to: str) -> Response[Any]:
    context = context_of(request)
    answer = await context.services.registry.call(
        context.services.sessions.CreateSession,
        sessions_pb2.CreateSessionRequest(),
        deadline=deadline,
        ticket=ticket,
    )
    response: Response[Any]
    if any(name in request.headers for name in BY_SCRIPT):
        response = Response({"form_token": form_token_of(answer.secret)})
        response.headers["Cache-Control"] = "no-store"
    else:
        response = see_other(to)
    response.set_cookie(session_cookie(request, answer.secret))
    return response


@post("/sign-out", access=WithinFleets(Access.VIEWER), status_code=200)
async def sign_out(request: ConsoleRequest) -> Response[Any]:
    """Ends the session, here and for every gateway."""
    await form_of(request)
    caller: Caller = request.auth
    await caller.ask_registry(
        caller.services.sessions.EndSession,
        sessions_pb2.EndSessionRequest(secret=session_secret_of(request)),
    )
    response = see_other("/console/sign-in")
    response.set_cookie(session_cookie(request, ""))
    return response


OPEN_ROUTES = Router(
    "/",
    route_handlers=[sign_in_page, sign_in, sign_in_code_page, sign_in_by_code],
    guards=[from_own_page],
)
