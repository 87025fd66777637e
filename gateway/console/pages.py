"""The answers of the console: pages, redirections and errors."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from litestar import Request, Response
from litestar.types import ExceptionHandlersMap

from gateway.console.navigation import navigation
from gateway.console.same_origin import FormExpired
from gateway.console.templates import rendered
from gateway.console.visitor import POSITION, VISITOR, ConsoleRequest, Visitor
from gateway.context import context_of
from gateway.problems import HANDLERS, Problem

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
SIGN_IN = "/console/sign-in"
# Set by htmx and by the console's scripts.
BY_SCRIPT = ("hx-request", "mooring-script")
FORM_TOKEN = "Mooring-Form-Token"  # noqa: S105 - the name of a header


def page(
    request: Request[Any, Any, Any], template: str, *, status: int = 200, **values: Any
) -> Response[bytes]:
    """A page from a template, with what every page shows."""
    visitor: Visitor | None = request.scope["state"].get(VISITOR)
    body = rendered(
        template,
        visitor=visitor,
        navigation=navigation(visitor) if visitor else [],
        path=request.scope["path"],
        position=request.scope["state"].get(POSITION, ""),
        # The answer to a form cannot be asked for again.
        is_read=request.scope["method"] == "GET",
        is_part="hx-request" in request.headers and "hx-boosted" not in request.headers,
        **values,
    )
    return Response(body, status_code=status, media_type="text/html", headers=HEADERS)


def see_other(path: str, **query: str) -> Response[None]:
    """Leads to another page after a change (RFC 9110, section 15.4.4). `path` is one of ours."""
    target = f"{path}?{urlencode(query)}" if query else path
    return Response(None, status_code=303, headers={**HEADERS, "Location": target})


def problem_of(request: ConsoleRequest, error: Exception) -> Problem:
    """The problem that the JSON route would answer with; it is recorded as that route does."""
    return _response_of(request, error).content


def _response_of(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    handler = next(HANDLERS[kind] for kind in type(error).__mro__ if kind in HANDLERS)
    response: Response[Problem] = handler(request, error)
    if note := context_of(request).note:
        note(request, error, response)
    return response


def _error_page(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    response = _response_of(request, error)
    found = response.content
    headers = {
        name: value for name, value in response.headers.items() if name in ("Retry-After", "Allow")
    }
    if found.status == HTTPStatus.UNAUTHORIZED:
        is_read = request.scope["method"] == "GET"
        if is_read and not any(name in request.headers for name in BY_SCRIPT):
            return see_other(SIGN_IN, next=_path_of(request))
        answer = page(request, "sign_in.html", status=401, next="", problem=found, is_again=True)
    else:
        answer = page(request, "error.html", status=found.status, problem=found)
        if isinstance(error, FormExpired) and any(name in request.headers for name in BY_SCRIPT):
            # Other origins cannot send such a request: the page's script sends the form again.
            headers[FORM_TOKEN] = request.scope["state"][VISITOR].form_token
    answer.headers.update(headers)
    return answer


def _path_of(request: Request[Any, Any, Any]) -> str:
    query = request.scope["query_string"].decode("latin-1")
    path = quote(request.scope["path"], safe="/")
    return f"{path}?{query}" if query else path


_page_of: Callable[[Request[Any, Any, Any], Any], Response[Any]] = _error_page
ERROR_PAGES: ExceptionHandlersMap = dict.fromkeys(HANDLERS, _page_of)
