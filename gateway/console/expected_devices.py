"""Expected devices: those that operators name before they register."""

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

from litestar import Response, Router, get, post
from litestar.params import QueryParameter

from chassis.errors import MooringError
from chassis.trust import Access, WithinFleets
from gateway.administration import expected_devices
from gateway.administration.expected_devices import DeviceUuid
from gateway.administration.listing import MAX_SEARCH, Cursor
from gateway.console.broker_names import broker_names
from gateway.console.changes import errors_of, own_address, problem_in_place
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import page, see_other
from gateway.console.visitor import ConsoleRequest, permitted, visitor_of
from gateway.problems import Problem

ON_A_PAGE = 50
HOME = "/console/expected-devices"
# An empty field leaves it to the device.
OPTIONAL = ("device_name", "device_type", "region")
REGISTERED = {"": None, "true": True, "false": False}


@get("/", access=WithinFleets(Access.VIEWER))
async def expected_device_list(
    request: ConsoleRequest,
    cursor: Cursor = "",
    fleet_id: Annotated[str, QueryParameter()] = "",
    registered: Annotated[str, QueryParameter(pattern="^(true|false|)$")] = "",
    uuid_prefix: Annotated[str, QueryParameter(max_length=MAX_SEARCH)] = "",
    changed: Annotated[str, QueryParameter(max_length=255)] = "",
) -> Response[bytes]:
    """The expected devices, in the order of their uuids."""
    listed, names = await asyncio.gather(
        expected_devices.list_expected_devices.fn(
            request,
            limit=ON_A_PAGE,
            cursor=cursor,
            fleet_id=fleet_id,
            registered=REGISTERED.get(registered),
            uuid_prefix=uuid_prefix,
        ),
        broker_names(request),
    )
    visitor = visitor_of(request)
    return page(
        request,
        "expected_devices.html",
        expected=listed.items,
        next_cursor=listed.next_cursor,
        fleet_id=fleet_id,
        registered=registered,
        uuid_prefix=uuid_prefix,
        changed=changed,
        brokers=names,
        address=own_address(request),
        may_create=visitor.may(expected_devices.create_expected_device),
        may_delete=visitor.may(expected_devices.delete_expected_device),
    )


@get("/new", access=WithinFleets(Access.OPERATOR), guards=[permitted])
async def new_expected_device(request: ConsoleRequest) -> Response[bytes]:
    """The form."""
    return await _form(request, {})


async def _form(
    request: ConsoleRequest, typed: dict[str, str], problem: Problem | None = None
) -> Response[bytes]:
    return page(
        request,
        "expected_device_new.html",
        status=problem.status if problem else 200,
        typed=typed,
        brokers=await broker_names(request),
        problem=problem,
        errors=errors_of(problem) if problem else {},
    )


@post("/", access=WithinFleets(Access.OPERATOR), action="expected_device.create", status_code=200)
async def create_expected_device(request: ConsoleRequest) -> Response[Any]:
    """Expects a device."""
    form = await form_of(request)
    try:
        body = body_of(expected_devices.create_expected_device, _values(form))
        made: Any = await expected_devices.create_expected_device.fn(request, body)
    except MooringError as error:
        names = ("uuid", "fleet_id", "mqtt_broker_id", *OPTIONAL)
        typed = {name: form.text(name) for name in names}
        return await _form(request, typed, problem_in_place(request, error))
    return see_other(HOME, changed=made.uuid)


def _values(form: Form) -> dict[str, Any]:
    return {
        "uuid": form.text("uuid"),
        "fleet_id": form.text("fleet_id"),
        "mqtt_broker_id": form.number("mqtt_broker_id"),
        **{name: form.text(name) or None for name in OPTIONAL},
    }


@get("/{uuid:str}/delete", access=WithinFleets(Access.OPERATOR), guards=[permitted])
async def delete_page(request: ConsoleRequest, uuid: DeviceUuid) -> Response[bytes]:
    """Says what deleting means."""
    expected: Any = await expected_devices.get_expected_device.fn(request, uuid)
    return page(
        request,
        "expected_device_delete.html",
        expected=expected,
        path_of_expected=f"{HOME}/{quote(uuid, safe='')}",
    )


@post(
    "/{uuid:str}/delete",
    access=WithinFleets(Access.OPERATOR),
    action="expected_device.delete",
    status_code=200,
)
async def delete_expected_device(request: ConsoleRequest, uuid: DeviceUuid) -> Response[Any]:
    """Expects the device no more."""
    await form_of(request)
    await expected_devices.delete_expected_device.fn(request, uuid)
    return see_other(HOME)


ROUTES = Router(
    "/expected-devices",
    route_handlers=[
        expected_device_list,
        new_expected_device,
        create_expected_device,
        delete_page,
        delete_expected_device,
    ],
)
