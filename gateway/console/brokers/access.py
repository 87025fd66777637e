"""The secrets with which a broker asks about clients, and the settings to paste into it."""

import asyncio
from typing import Any

from litestar import Response, get, post

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import broker_secrets
from gateway.administration.broker_secrets import SecretId
from gateway.administration.fields import PathId
from gateway.console.brokers.addresses import access_address_of
from gateway.console.brokers.shell import broker_of, broker_page, path_of
from gateway.console.brokers.snippets import snippets_for
from gateway.console.changes import own_address
from gateway.console.forms import form_of
from gateway.console.pages import problem_of, see_other
from gateway.console.visitor import ConsoleRequest
from gateway.problems import Problem


async def _page(
    request: ConsoleRequest,
    broker_id: int,
    *,
    secret: str = "",
    problem: Problem | None = None,
) -> Response[bytes]:
    """`secret` is one that was just made. It is shown this once, also in the settings."""
    listed: Any
    broker, listed = await asyncio.gather(
        broker_of(request, broker_id),
        broker_secrets.list_broker_secrets.fn(request, broker_id),
    )
    return broker_page(
        request,
        "broker_access.html",
        broker,
        status=problem.status if problem else 200,
        secrets=listed.items,
        secret=secret,
        kinds=snippets_for(
            broker_id,
            broker.port,
            own_address(request),
            access_address_of(request),
            secret=secret,
        ),
        problem=problem,
    )


@get("/{broker_id:int}/access", access=Access.VIEWER)
async def broker_access(request: ConsoleRequest, broker_id: PathId) -> Response[bytes]:
    """The secrets without their values, and the settings for each kind of broker."""
    return await _page(request, broker_id)


@post(
    "/{broker_id:int}/access",
    access=Access.OPERATOR,
    action="broker_secret.create",
    status_code=200,
)
async def make_secret(request: ConsoleRequest, broker_id: PathId) -> Response[bytes]:
    """Makes a secret and shows it, this once."""
    await form_of(request)
    try:
        made = await broker_secrets.create_broker_secret.fn(request, broker_id)
    except MooringError as error:
        return await _page(request, broker_id, problem=problem_of(request, error))
    return await _page(request, broker_id, secret=made.secret)


@get("/{broker_id:int}/access/{secret_id:str}", access=Access.OPERATOR)
async def confirm_deletion(
    request: ConsoleRequest, broker_id: PathId, secret_id: SecretId
) -> Response[bytes]:
    """What deleting the secret will do, and the button that does it."""
    return await _deletion(request, broker_id, secret_id)


async def _deletion(
    request: ConsoleRequest, broker_id: int, secret_id: str, problem: Problem | None = None
) -> Response[bytes]:
    listed: Any
    broker, listed = await asyncio.gather(
        broker_of(request, broker_id),
        broker_secrets.list_broker_secrets.fn(request, broker_id),
    )
    found = next((secret for secret in listed.items if secret.id == secret_id), None)
    return broker_page(
        request,
        "broker_secret.html",
        broker,
        status=problem.status if problem else (200 if found else 404),
        secret=found,
        secrets=listed.items,
        problem=problem,
    )


@post(
    "/{broker_id:int}/access/{secret_id:str}",
    access=Access.OPERATOR,
    action="broker_secret.delete",
    status_code=200,
)
async def delete_secret(
    request: ConsoleRequest, broker_id: PathId, secret_id: SecretId
) -> Response[Any]:
    """Deletes the secret: the broker is refused with it from now on."""
    await form_of(request)
    try:
        await broker_secrets.delete_broker_secret.fn(request, broker_id, secret_id)
    except MooringError as error:
        return await _deletion(request, broker_id, secret_id, problem_of(request, error))
    return see_other(f"{path_of(broker_id)}/access")
