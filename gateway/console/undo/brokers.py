"""Undoing the last change of a pin, of the default broker or of a broker's settings."""

import asyncio
from typing import Any

from litestar import Response, get, post

from chassis.errors import InvalidInput, MooringError, NotFound
from gateway.administration import broker_history, brokers, device_counts, devices
from gateway.administration.devices import DeviceUuid
from gateway.administration.fields import PathId
from gateway.console.device import device_of
from gateway.console.forms import body_of, form_of
from gateway.console.pages import see_other
from gateway.console.templates import counted
from gateway.console.undo.shown import (
    HOME,
    SHOWN_IN_PLACE,
    BrokerOrNone,
    ChangedSince,
    broker_in,
    undo_page,
)
from gateway.console.visitor import ConsoleRequest, permitted, visitor_of


@get("/pin/{uuid:str}", access=devices.update_device.opt["access"], guards=[permitted])
async def confirm_pin(
    request: ConsoleRequest, uuid: DeviceUuid, was: BrokerOrNone = 0, to: BrokerOrNone = 0
) -> Response[bytes]:
    """What undoing would do to a device's pin."""
    return await _pin_page(request, uuid, was, to)


async def _pin_page(
    request: ConsoleRequest, uuid: str, was: int, to: int, error: MooringError | None = None
) -> Response[bytes]:
    device: Any
    device, now, then = await asyncio.gather(
        device_of(request, uuid), _name_of(request, was), _name_of(request, to)
    )
    return undo_page(
        request,
        f"the pin of {device.device_name}",
        f"/console/undo/pin/{uuid}",
        {"was": was, "to": to},
        rows=[("mqtt_broker_id", now, then)],
        text="One device gets the broker before, when it next asks.",
        error=error,
        is_current=(device.mqtt_broker_id or 0) == was,
    )


async def _name_of(request: ConsoleRequest, broker_id: int) -> str:
    if not broker_id:
        return "none"
    try:
        found: Any = await brokers.get_broker.fn(request, broker_id=broker_id)
    except NotFound:
        return f"broker {broker_id}"
    return str(found.content.name)


@post(
    "/pin/{uuid:str}",
    access=devices.update_device.opt["access"],
    action=devices.update_device.opt["action"],
    status_code=200,
)
async def undo_pin(request: ConsoleRequest, uuid: DeviceUuid) -> Response[Any]:
    """Gives a device the pin before, unless it has changed again."""
    form = await form_of(request)
    was, to = broker_in(form.number("was"), "was"), broker_in(form.number("to"), "to")
    try:
        device = await device_of(request, uuid)
        if (device.mqtt_broker_id or 0) != was:
            raise ChangedSince
        body = body_of(devices.update_device, {"mqtt_broker_id": to or None})
        await devices.update_device.fn(request, uuid, body, if_revision=[device.revision])
    except SHOWN_IN_PLACE as error:
        return await _pin_page(request, uuid, was, to, error)
    return see_other(HOME)


@get(
    "/default/{broker_id:int}", access=brokers.set_default_broker.opt["access"], guards=[permitted]
)
async def confirm_default(
    request: ConsoleRequest, broker_id: PathId, was: BrokerOrNone = 0
) -> Response[bytes]:
    """What making the default before the default again would do."""
    return await _default_page(request, broker_id, was)


async def _default_page(
    request: ConsoleRequest, broker_id: int, was: int, error: MooringError | None = None
) -> Response[bytes]:
    then, default = await asyncio.gather(
        brokers.get_broker.fn(request, broker_id=broker_id), _default_of(request)
    )
    text = "Devices that use the default move when they next ask."
    if default is not None and visitor_of(request).may(device_counts.get_device_counts):
        counts: Any = await device_counts.get_device_counts.fn(request, broker_id=default.id)
        number = counted(counts.assigned.default, "device uses", "devices use")
        text = f"{number} the default, and will move when asking next."
    return undo_page(
        request,
        "the change of the default",
        f"/console/undo/default/{broker_id}",
        {"was": was},
        rows=[("default", default.name if default else "none", then.content.name)],
        text=text,
        error=error,
        is_current=default is not None and default.id == was,
    )


async def _default_of(request: ConsoleRequest) -> Any:
    listed: Any = await brokers.list_brokers.fn(request, limit=1, is_default=True)
    return listed.items[0] if listed.items else None


@post(
    "/default/{broker_id:int}",
    access=brokers.set_default_broker.opt["access"],
    action=brokers.set_default_broker.opt["action"],
    status_code=200,
)
async def undo_default(request: ConsoleRequest, broker_id: PathId) -> Response[Any]:
    """Makes the default before the default again, unless it has changed again."""
    form = await form_of(request)
    was = broker_in(form.number("was"), "was")
    try:
        default = await _default_of(request)
        if default is None or default.id != was:
            raise ChangedSince
        await brokers.set_default_broker.fn(request, broker_id=broker_id, if_revision=[])
    except SHOWN_IN_PLACE as error:
        return await _default_page(request, broker_id, was, error)
    return see_other(HOME)


@get(
    "/broker/{broker_id:int}",
    access=broker_history.roll_back_broker.opt["access"],
    guards=[permitted],
)
async def confirm_broker(request: ConsoleRequest, broker_id: PathId) -> Response[bytes]:
    """The last change of a broker, and what it was before."""
    return await _broker_page(request, broker_id)


async def _broker_page(
    request: ConsoleRequest, broker_id: int, error: MooringError | None = None
) -> Response[bytes]:
    history: Any
    history, name = await asyncio.gather(
        broker_history.list_broker_revisions.fn(request, broker_id=broker_id, limit=1),
        _name_of(request, broker_id),
    )
    newest = history.items[0]
    rows = [
        (field, "secret", "secret")
        if isinstance(change, str)
        else (field, change.after, change.before)
        for field, change in newest.changes.items()
    ]
    return undo_page(
        request,
        f"the last change of {name}",
        f"/console/undo/broker/{broker_id}",
        {"revision": newest.revision},
        rows=rows,
        text=f"{newest.changed_by} made it. Undoing makes a new revision.",
        error=error,
        is_current=newest.kind == "updated" and newest.revision > 1,
    )


@post(
    "/broker/{broker_id:int}",
    access=broker_history.roll_back_broker.opt["access"],
    action=broker_history.roll_back_broker.opt["action"],
    status_code=200,
)
async def undo_broker(request: ConsoleRequest, broker_id: PathId) -> Response[Any]:
    """Restores the revision before, unless the broker has changed again."""
    form = await form_of(request)
    revision = form.number("revision")
    if not isinstance(revision, int):
        raise InvalidInput("must be the revision of the change", field="revision")
    try:
        body = body_of(broker_history.roll_back_broker, {"revision": revision - 1})
        await broker_history.roll_back_broker.fn(
            request, broker_id=broker_id, data=body, if_revision=[revision]
        )
    except SHOWN_IN_PLACE as error:
        return await _broker_page(request, broker_id, error)
    return see_other(HOME)
