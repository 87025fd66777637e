"""Service accounts: MQTT users that are not devices, their passwords and their rights."""

import asyncio
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from litestar import Response, Router, get, post
from litestar.params import FromQuery

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import service_accounts
from gateway.administration.listing import Cursor
from gateway.administration.service_accounts import AccountId
from gateway.console.broker_names import broker_names
from gateway.console.changes import (
    changed_in,
    changed_since,
    errors_of,
    ids_in,
    lines_of,
    lost_in,
    moment_in,
    moment_text,
    own_address,
    problem_in_place,
    seen_revision,
    typed_in,
)
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import page, see_other
from gateway.console.visitor import ConsoleRequest, permitted, visitor_of
from gateway.problems import Problem

ON_A_PAGE = 50
LISTS = ("publish", "subscribe")
FIELDS = ("description", *LISTS, "broker_ids", "expires_at", "is_active")
HOME = "/console/service-accounts"


def state_of(account: Any, now: datetime) -> tuple[str, str, str]:
    """The kind, the word and the icon of an account's state."""
    if not account.is_active:
        return "off", "Disabled", "pause"
    if account.expires_at is not None and account.expires_at <= now:
        return "bad", "Expired", "clock"
    return "ok", "Active", "check"


def _texts(account: Any) -> dict[str, str]:
    """The fields of an account as its form has them."""
    return {
        **{name: "\n".join(getattr(account, name)) for name in LISTS},
        "description": account.description,
        "broker_ids": "\n".join(map(str, sorted(account.broker_ids or []))),
        "expires_at": moment_text(account.expires_at),
        "is_active": "true" if account.is_active else "",
    }


def _values(form: Form, names: Iterable[str]) -> dict[str, Any]:
    """The named fields as members of the JSON body."""
    values: dict[str, Any] = {}
    for name in names:
        match name:
            case "publish" | "subscribe":
                values[name] = lines_of(form, name)
            case "broker_ids":
                values[name] = ids_in(form, name) or None
            case "expires_at":
                values[name] = moment_in(form, name)
            case "is_active":
                values[name] = form.is_ticked(name)
            case _:
                values[name] = form.text(name)
    return values


@get("/", access=Access.VIEWER)
async def account_list(request: ConsoleRequest, cursor: Cursor = "") -> Response[bytes]:
    """A page of service accounts."""
    listed: Any = await service_accounts.list_service_accounts.fn(
        request, limit=ON_A_PAGE, cursor=cursor
    )
    now = datetime.now(UTC)
    return page(
        request,
        "service_accounts.html",
        accounts=[(account, state_of(account, now)) for account in listed.items],
        next_cursor=listed.next_cursor,
        may_create=visitor_of(request).may(service_accounts.create_service_account),
        address=own_address(request),
    )


async def _form(
    request: ConsoleRequest, texts: dict[str, str], problem: Problem | None = None
) -> Response[bytes]:
    return page(
        request,
        "service_account_new.html",
        status=problem.status if problem else 200,
        texts=texts,
        brokers=await broker_names(request),
        problem=problem,
        errors=errors_of(problem) if problem else {},
    )


@get("/new", access=Access.ADMIN, guards=[permitted])
async def new_account(request: ConsoleRequest) -> Response[bytes]:
    """The form for a new account."""
    return await _form(request, {**dict.fromkeys(("username", *FIELDS), ""), "is_active": "true"})


@post("/", access=Access.ADMIN, action="service_account.create", status_code=200)
async def create_account(request: ConsoleRequest) -> Response[bytes]:
    """Makes an account. The answer is the only page that shows its password."""
    form = await form_of(request)
    route = service_accounts.create_service_account
    try:
        values = {"username": form.text("username"), **_values(form, FIELDS)}
        made = await route.fn(request, body_of(route, values))
    except MooringError as error:
        problem = problem_in_place(request, error)
        return await _form(request, typed_in(form, ("username", *FIELDS)), problem)
    return _made(request, made.content, is_new=True)


def _made(request: ConsoleRequest, account: Any, *, is_new: bool) -> Response[bytes]:
    login = ["-u", account.username, "-P", account.password]
    topic = account.subscribe[0] if account.subscribe else ""
    return page(
        request,
        "service_account_made.html",
        account=account,
        is_new=is_new,
        command=shlex.join(["mosquitto_sub", "-h", "BROKER", *login, "-t", topic]) if topic else "",
    )


async def _shown(
    request: ConsoleRequest,
    account_id: str,
    *,
    typed: dict[str, str] | None = None,
    problem: Problem | None = None,
    lost: Form | None = None,
    is_saved: bool = False,
) -> Response[bytes]:
    answer, names = await asyncio.gather(
        service_accounts.get_service_account.fn(request, account_id), broker_names(request)
    )
    account = answer.content
    was = _texts(account)
    return page(
        request,
        "service_account.html",
        status=problem.status if problem else 200,
        account=account,
        state=state_of(account, datetime.now(UTC)),
        brokers=names,
        texts={**was, **(typed or {})},
        was=was,
        race=changed_since(lost, was, typed or {}, names),
        is_typed=bool(typed),
        problem=problem,
        errors=errors_of(problem) if problem else {},
        is_saved=is_saved,
        may_change=visitor_of(request).may(service_accounts.update_service_account),
    )


@get("/{account_id:str}", access=Access.VIEWER)
async def one_account(
    request: ConsoleRequest, account_id: AccountId, saved: FromQuery[Literal["", "yes"]] = ""
) -> Response[bytes]:
    """An account with its rights, without its password."""
    return await _shown(request, account_id, is_saved=bool(saved))


@post("/{account_id:str}", access=Access.ADMIN, action="service_account.update", status_code=200)
async def update_account(request: ConsoleRequest, account_id: AccountId) -> Response[Any]:
    """Sends the changed fields. Refused if another person has changed the account meanwhile."""
    form = await form_of(request)
    route = service_accounts.update_service_account
    try:
        values = _values(form, changed_in(form, FIELDS))
        if values:
            change = body_of(route, values)
            await route.fn(request, account_id, change, if_revision=seen_revision(form))
    except MooringError as error:
        problem = problem_in_place(request, error)
        return await _shown(
            request,
            account_id,
            typed=typed_in(form, changed_in(form, FIELDS)),
            problem=problem,
            lost=lost_in(form, error),
        )
    return see_other(f"{HOME}/{account_id}", saved="yes")


async def _asking(request: ConsoleRequest, account_id: str, act: str) -> Response[bytes]:
    answer = await service_accounts.get_service_account.fn(request, account_id)
    account = answer.content
    return page(request, "service_account_act.html", account=account, was=_texts(account), act=act)


@get("/{account_id:str}/rotate", access=Access.ADMIN, guards=[permitted])
async def rotating(request: ConsoleRequest, account_id: AccountId) -> Response[bytes]:
    """Says what a new password does, and asks."""
    return await _asking(request, account_id, "rotate")


@get("/{account_id:str}/delete", access=Access.ADMIN, guards=[permitted])
async def deleting(request: ConsoleRequest, account_id: AccountId) -> Response[bytes]:
    """Says what deleting the account does, and asks."""
    return await _asking(request, account_id, "delete")


@post(
    "/{account_id:str}/rotate",
    access=Access.ADMIN,
    action="service_account.rotate",
    status_code=200,
)
async def rotate_account(request: ConsoleRequest, account_id: AccountId) -> Response[bytes]:
    """Gives the account a new password. The answer is the only page that shows it."""
    form = await form_of(request)
    route = service_accounts.rotate_service_account
    try:
        renewed = await route.fn(request, account_id, if_revision=seen_revision(form))
    except MooringError as error:
        problem = problem_in_place(request, error)
        return await _shown(request, account_id, problem=problem, lost=lost_in(form, error))
    return _made(request, renewed.content, is_new=False)


@post(
    "/{account_id:str}/delete",
    access=Access.ADMIN,
    action="service_account.delete",
    status_code=200,
)
async def delete_account(request: ConsoleRequest, account_id: AccountId) -> Response[Any]:
    """Deletes the account."""
    form = await form_of(request)
    route = service_accounts.delete_service_account
    try:
        await route.fn(request, account_id, if_revision=seen_revision(form))
    except MooringError as error:
        problem = problem_in_place(request, error)
        return await _shown(request, account_id, problem=problem, lost=lost_in(form, error))
    return see_other(HOME)


ROUTES = Router(
    "/service-accounts",
    route_handlers=[
        account_list,
        new_account,
        create_account,
        one_account,
        update_account,
        rotating,
        deleting,
        rotate_account,
        delete_account,
    ],
)
