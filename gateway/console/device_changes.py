"""Changes of one device: each form of its page, and the confirmation of what cannot be undone."""

from typing import Any

import msgspec
from litestar import Response, Router, get, post

from chassis.errors import InvalidInput, LostRace, MooringError
from chassis.trust import Access, WithinFleets
from gateway.administration import devices
from gateway.administration.devices import DeviceUuid
from gateway.console.changes import errors_of, lost_in, problem_in_place, seen_revision
from gateway.console.device import device_of, path_of, seen_of, shown
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import page, see_other
from gateway.console.visitor import ConsoleRequest, permitted
from gateway.problems import Problem

TEXTS = ("device_name", "device_type")
# An empty field removes the value.
REMOVABLE = ("region",)
BOXES = ("is_active", "reprovisioning_allowed")
PLACE = ("latitude", "longitude")
# An empty field stands for none.
PLACING = ("mqtt_broker_id", "pool_id")


@post("/{uuid:str}", access=WithinFleets(Access.OPERATOR), action="device.update", status_code=200)
async def change_device(request: ConsoleRequest, uuid: DeviceUuid) -> Response[Any]:
    """Changes the fields that the form has."""
    form = await form_of(request)
    values = _values(form)
    try:
        before = await device_of(request, uuid)
        change = body_of(devices.update_device, values)
        await devices.update_device.fn(request, uuid, change, if_revision=seen_revision(form))
    except MooringError as error:
        return await _refused(request, uuid, form, error)
    was = {name: getattr(before, name) for name in values}
    return see_other(path_of(uuid), was=msgspec.json.encode(was).decode())


async def _refused(
    request: ConsoleRequest, uuid: str, form: Form, error: MooringError
) -> Response[bytes]:
    problem = problem_in_place(request, error)
    return await shown(
        request,
        uuid,
        status=problem.status,
        problem=problem,
        typed=_typed(form),
        lost=lost_in(form, error),
    )


def _values(form: Form) -> dict[str, Any]:
    """The fields of the form as members of the JSON body. Fields that it does not have are left
    out.
    """
    values: dict[str, Any] = {name: form.text(name) for name in TEXTS if name in form}
    values |= {name: form.text(name) or None for name in REMOVABLE if name in form}
    values |= {name: _truth(form.text(name)) for name in BOXES if name in form}
    values |= {name: form.number(name) for name in PLACING if name in form}
    if any(name in form for name in PLACE):
        place = {name: _decimal(form.text(name)) for name in PLACE}
        is_empty = all(value is None for value in place.values())
        values["location"] = None if is_empty else place
    return values


def _typed(form: Form) -> dict[str, str]:
    names = (*TEXTS, *REMOVABLE, *PLACE, *PLACING)
    return {name: form.text(name) for name in names if name in form}


def _truth(text: str) -> bool | str:
    """A text that is no truth value stays a text, so that the route refuses it."""
    return {"true": True, "false": False}.get(text, text)


def _decimal(text: str) -> float | str | None:
    try:
        # Underscores and names such as "nan" are no numbers to a person.
        return float(text) if text.translate(_NO_DIGITS) == "" and text else text or None
    except ValueError:
        return text


_NO_DIGITS = {ord(sign): None for sign in "0123456789.-+"}


@get("/{uuid:str}/revoke", access=WithinFleets(Access.OPERATOR), guards=[permitted])
async def revoke_page(request: ConsoleRequest, uuid: DeviceUuid) -> Response[bytes]:
    """Says what revoking does."""
    return await _confirmation(request, uuid, "device_revoke.html")


@post(
    "/{uuid:str}/revoke",
    access=WithinFleets(Access.OPERATOR),
    action="device.revoke_credentials",
    status_code=200,
)
async def revoke(request: ConsoleRequest, uuid: DeviceUuid) -> Response[Any]:
    """Ends the password of the device."""
    await form_of(request)
    await devices.revoke_credentials.fn(request, uuid)
    return see_other(path_of(uuid), revoked="true")


@get("/{uuid:str}/delete", access=WithinFleets(Access.OPERATOR), guards=[permitted])
async def delete_page(request: ConsoleRequest, uuid: DeviceUuid) -> Response[bytes]:
    """Asks for the uuid."""
    return await _confirmation(request, uuid, "device_delete.html")


@post(
    "/{uuid:str}/delete",
    access=WithinFleets(Access.OPERATOR),
    action="device.delete",
    status_code=200,
)
async def delete_device(request: ConsoleRequest, uuid: DeviceUuid) -> Response[Any]:
    """Deletes the device if its uuid was typed."""
    form = await form_of(request)
    try:
        if form.text("uuid") != uuid:
            raise InvalidInput("is not the uuid of this device", field="uuid")
        await devices.delete_device.fn(request, uuid, if_revision=seen_revision(form))
    except LostRace as error:
        return await _refused(request, uuid, form, error)
    except InvalidInput as error:
        problem = problem_in_place(request, error)
        return await _confirmation(
            request, uuid, "device_delete.html", problem=problem, typed=form.text("uuid")
        )
    return see_other("/console/devices", deleted=uuid)


async def _confirmation(
    request: ConsoleRequest,
    uuid: str,
    template: str,
    *,
    problem: Problem | None = None,
    typed: str = "",
) -> Response[bytes]:
    device = await device_of(request, uuid)
    return page(
        request,
        template,
        status=problem.status if problem else 200,
        device=device,
        seen=seen_of(device),
        path_of_device=path_of(uuid),
        problem=problem,
        errors=errors_of(problem) if problem else {},
        typed=typed,
    )


ROUTES = Router(
    "/devices",
    route_handlers=[change_device, revoke_page, revoke, delete_page, delete_device],
)
