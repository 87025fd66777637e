"""Provisioning keys: a list with their use, one key with its limits, and how to end one."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from litestar import Response, Router, get, post
from litestar.params import FromQuery, QueryParameter

from chassis.errors import MooringError
from chassis.trust import Access, WithinFleets
from gateway.administration import device_lists, provisioning_keys
from gateway.administration.listing import Cursor
from gateway.administration.provisioning_keys import KeyId
from gateway.console.broker_names import broker_names, names_of
from gateway.console.changes import (
    changed_in,
    changed_since,
    errors_of,
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
from gateway.console.qr_code import installer_code
from gateway.console.visitor import ConsoleRequest, permitted, visitor_of
from gateway.problems import Problem

ON_A_PAGE = 50
# A key that ends within this time, or has used this share of its limit, is marked.
SOON = timedelta(days=7)
NEARLY_USED_UP = 0.9

LISTS = ("allowed_device_types", "source_networks", "allowed_uuids")
PLACES = ("default_broker_id", "default_pool_id")
FIELDS = (
    "description",
    "max_devices",
    "expires_at",
    *PLACES,
    "uuid_prefix",
    "only_expected",
    *LISTS,
)
HOME = "/console/provisioning-keys"


def state_of(key: Any, now: datetime) -> tuple[str, str, str]:
    """The kind, the word and the icon of a key's state."""
    left = None if key.max_devices is None else key.max_devices - key.devices_provisioned
    if not key.is_active:
        return "off", "Revoked", "x"
    if key.expires_at is not None and key.expires_at <= now:
        return "bad", "Expired", "clock"
    if left is not None and left <= 0:
        return "bad", "Used up", "x"
    if key.expires_at is not None and key.expires_at - now < SOON:
        return "warn", "Expires soon", "clock"
    if left is not None and key.devices_provisioned >= NEARLY_USED_UP * key.max_devices:
        return "warn", "Nearly used up", "warn"
    return "ok", "Active", "check"


def _texts(key: Any) -> dict[str, str]:
    """The fields of a key as its form has them."""
    texts = {name: "\n".join(getattr(key, name) or []) for name in LISTS}
    for name in ("description", "max_devices", *PLACES, "uuid_prefix"):
        value = getattr(key, name)
        texts[name] = "" if value is None else str(value)
    texts["expires_at"] = moment_text(key.expires_at)
    texts["only_expected"] = "true" if key.only_expected else ""
    return texts


def _seen(key: Any) -> dict[str, str]:
    """What the pages of a key show of it, to say later what has changed since."""
    return {**_texts(key), "is_active": "true" if key.is_active else ""}


def _values(form: Form, names: Any) -> dict[str, Any]:
    """The named fields as members of the JSON body."""
    read: dict[str, Any] = {
        "description": lambda: form.text("description") or None,
        "max_devices": lambda: form.number("max_devices"),
        "expires_at": lambda: moment_in(form, "expires_at"),
        "default_broker_id": lambda: form.number("default_broker_id"),
        "default_pool_id": lambda: form.number("default_pool_id"),
        "uuid_prefix": lambda: form.text("uuid_prefix") or None,
        "only_expected": lambda: form.is_ticked("only_expected"),
        **{name: lambda name=name: lines_of(form, name) or None for name in LISTS},
    }
    return {name: read[name]() for name in names}


async def _key_of(request: ConsoleRequest, key_id: str) -> Any:
    """The key as it is now. Raises what the JSON route raises."""
    answer: Any = await provisioning_keys.get_provisioning_key.fn(request, key_id)
    return answer.content


@get("/", access=WithinFleets(Access.VIEWER))
async def key_list(
    request: ConsoleRequest,
    cursor: Cursor = "",
    fleet_id: Annotated[str, QueryParameter(max_length=64)] = "",
    only: FromQuery[Literal["", "active", "revoked"]] = "",
) -> Response[bytes]:
    """A page of keys, of one fleet or of all."""
    listed: Any = await provisioning_keys.list_provisioning_keys.fn(
        request,
        limit=ON_A_PAGE,
        cursor=cursor,
        fleet_id=fleet_id,
        is_active={"": None, "active": True, "revoked": False}[only],
    )
    now = datetime.now(UTC)
    return page(
        request,
        "provisioning_keys.html",
        keys=[(key, state_of(key, now)) for key in listed.items],
        next_cursor=listed.next_cursor,
        fleet_id=fleet_id,
        only=only,
        may_create=visitor_of(request).may(provisioning_keys.create_provisioning_key),
        address=own_address(request),
    )


async def _form(
    request: ConsoleRequest, texts: dict[str, str], problem: Problem | None = None
) -> Response[bytes]:
    return page(
        request,
        "provisioning_key_new.html",
        status=problem.status if problem else 200,
        texts=texts,
        brokers=await broker_names(request),
        problem=problem,
        errors=errors_of(problem) if problem else {},
    )


@get("/new", access=WithinFleets(Access.OPERATOR), guards=[permitted])
async def new_key(
    request: ConsoleRequest, fleet_id: Annotated[str, QueryParameter(max_length=64)] = ""
) -> Response[bytes]:
    """The form for a new key."""
    return await _form(request, {**dict.fromkeys(FIELDS, ""), "fleet_id": fleet_id})


@post("/", access=WithinFleets(Access.OPERATOR), action="provisioning_key.create", status_code=200)
async def create_key(request: ConsoleRequest) -> Response[bytes]:
    """Makes a key. The answer is the only page that shows it."""
    form = await form_of(request)
    route = provisioning_keys.create_provisioning_key
    try:
        values = {"fleet_id": form.text("fleet_id"), **_values(form, FIELDS)}
        answer: Any = await route.fn(request, body_of(route, values))
        made = answer.content
    except MooringError as error:
        problem = problem_in_place(request, error)
        return await _form(request, typed_in(form, ("fleet_id", *FIELDS)), problem)
    address = own_address(request)
    return page(
        request,
        "provisioning_key_made.html",
        key=made,
        address=address,
        code=installer_code(address, made.key),
    )


async def _shown(
    request: ConsoleRequest,
    key_id: str,
    *,
    typed: dict[str, str] | None = None,
    problem: Problem | None = None,
    lost: Form | None = None,
    is_saved: bool = False,
) -> Response[bytes]:
    key, names = await asyncio.gather(_key_of(request, key_id), broker_names(request))
    visitor = visitor_of(request)
    was, seen = _texts(key), _seen(key)
    may_change = visitor.may(provisioning_keys.update_provisioning_key) and key.is_active
    return page(
        request,
        "provisioning_key.html",
        status=problem.status if problem else 200,
        key=key,
        state=state_of(key, datetime.now(UTC)),
        texts={**was, **(typed or {})},
        seen=seen,
        race=changed_since(lost, seen, typed or {}, names),
        is_typed=bool(typed) and may_change,
        brokers=names,
        problem=problem,
        errors=errors_of(problem) if problem else {},
        is_saved=is_saved,
        may_change=may_change,
        may_list_devices=visitor.may(device_lists.list_devices),
    )


@get("/{key_id:str}", access=WithinFleets(Access.VIEWER))
async def one_key(
    request: ConsoleRequest, key_id: KeyId, saved: FromQuery[Literal["", "yes"]] = ""
) -> Response[bytes]:
    """A key with its use and its limits."""
    return await _shown(request, key_id, is_saved=bool(saved))


@post(
    "/{key_id:str}",
    access=WithinFleets(Access.OPERATOR),
    action="provisioning_key.update",
    status_code=200,
)
async def update_key(request: ConsoleRequest, key_id: KeyId) -> Response[Any]:
    """Changes the limits that the person changed."""
    form = await form_of(request)
    route = provisioning_keys.update_provisioning_key
    try:
        values = _values(form, changed_in(form, FIELDS))
        if values:
            change = body_of(route, values)
            await route.fn(request, key_id, change, if_revision=seen_revision(form))
    except MooringError as error:
        problem = problem_in_place(request, error)
        return await _shown(
            request,
            key_id,
            typed=typed_in(form, changed_in(form, FIELDS)),
            problem=problem,
            lost=lost_in(form, error),
        )
    return see_other(f"{HOME}/{key_id}", saved="yes")


async def _revocation(
    request: ConsoleRequest,
    key_id: str,
    *,
    done: Any = None,
    problem: Problem | None = None,
    lost: Form | None = None,
) -> Response[bytes]:
    """The page that says what revoking the key does, and asks; or what was `done`."""
    key = await _key_of(request, key_id)
    seen = _seen(key)
    names = await names_of(request, [key.default_broker_id] if lost else [])
    return page(
        request,
        "provisioning_key_revoke.html",
        status=problem.status if problem else 200,
        key=key,
        seen=seen,
        race=changed_since(lost, seen, {}, names),
        problem=problem,
        done=done,
    )


@get("/{key_id:str}/revoke", access=WithinFleets(Access.OPERATOR), guards=[permitted])
async def revoking(request: ConsoleRequest, key_id: KeyId) -> Response[bytes]:
    """Says what revoking the key does, and asks."""
    return await _revocation(request, key_id)


@post(
    "/{key_id:str}/revoke",
    access=WithinFleets(Access.OPERATOR),
    action="provisioning_key.revoke",
    status_code=200,
)
async def revoke_key(request: ConsoleRequest, key_id: KeyId) -> Response[Any]:
    """Revokes the key, and deactivates its devices if the person chose that."""
    form = await form_of(request)
    route = provisioning_keys.revoke_provisioning_key
    values = {"devices": form.text("devices") or "keep"}
    change = body_of(route, values)
    try:
        done = await route.fn(request, key_id, change, if_revision=seen_revision(form))
    except MooringError as error:
        problem = problem_in_place(request, error)
        return await _revocation(request, key_id, problem=problem, lost=lost_in(form, error))
    if values["devices"] == "keep":
        return see_other(f"{HOME}/{key_id}")
    return await _revocation(request, key_id, done=done)


ROUTES = Router(
    "/provisioning-keys",
    route_handlers=[key_list, new_key, create_key, one_key, update_key, revoking, revoke_key],
)
