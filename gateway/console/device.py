"""One device: its facts, its broker and why, its credentials and what happened to it."""

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from litestar import Response, Router, get
from litestar.params import QueryParameter

from chassis.errors import MooringError
from chassis.trust import Access, WithinFleets
from gateway.administration import (
    device_reports,
    devices,
    jobs,
    provisioning_keys,
    resolution,
    timeline,
)
from gateway.administration.device_types import DeviceChange, DeviceLocation
from gateway.administration.devices import DeviceUuid
from gateway.console.broker_names import broker_names
from gateway.console.changes import changed_since, errors_of
from gateway.console.forms import Form, body_of
from gateway.console.pages import page, problem_of
from gateway.console.visitor import ConsoleRequest, visitor_of
from gateway.problems import Problem

# What the events of a timeline are called, with their icons and colours.
EVENTS = {
    "created": ("Created", "plus", "info"),
    "registered": ("Registered", "check", "ok"),
    "registration_refused": ("Registration refused", "x", "bad"),
    "settings_refused": ("Refused its broker settings", "x", "bad"),
    "rotation_refused": ("Refused new credentials", "x", "bad"),
    "answer_changed": ("Got another broker", "broker", "info"),
    "connected": ("Connected", "bolt", "ok"),
    "connect_refused": ("Refused by a broker", "x", "bad"),
    "credentials_rotated": ("Got a new MQTT password", "key", "info"),
    "credentials_revoked": ("Its MQTT password was revoked", "key", "warn"),
    "reported_connected": ("Reports that it reached a broker", "bolt", "ok"),
    "reported_failed": ("Reports that it cannot reach a broker", "x", "bad"),
    "changed": ("Changed by an administrator", "edit", "info"),
}
OTHER_EVENT = ("Event", "info", "info")

Was = Annotated[str, QueryParameter(max_length=2_000)]


def path_of(uuid: str) -> str:
    """The page of a device."""
    return f"/console/devices/{quote(uuid, safe='')}"


async def device_of(request: ConsoleRequest, uuid: str) -> Any:
    """The device. Raises `DeviceNotFound`."""
    answer: Any = await devices.get_device.fn(request, uuid)
    return answer.content


def seen_of(device: Any) -> dict[str, str]:
    """What the pages of a device show of what can be changed, to say later what has changed."""
    seen = {name: getattr(device, name) for name in DeviceChange.__struct_fields__}
    place = seen.pop("location")
    seen |= {name: getattr(place, name, None) for name in DeviceLocation.__struct_fields__}
    return {name: _text_of(value) for name, value in seen.items()}


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else ""
    return "" if value is None else str(value)


@get("/{uuid:str}", access=WithinFleets(Access.VIEWER))
async def device_page(
    request: ConsoleRequest,
    uuid: DeviceUuid,
    was: Was = "",
    revoked: Annotated[bool, QueryParameter()] = False,
) -> Response[bytes]:
    """A device. After a change, `was` has the previous values, so that it can be undone."""
    before = previous_values(was)
    return await shown(request, uuid, before=before, is_revoked=revoked)


def previous_values(was: str) -> dict[str, Any]:
    """The values in an address of this page. Raises `InvalidInput`: a person may have edited it."""
    if not was:
        return {}
    change = body_of(devices.update_device, _object(was))
    return {
        name: getattr(change, name)
        for name in change.__struct_fields__
        if getattr(change, name) is not msgspec.UNSET
    }


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogatepass"), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"was": text}


async def shown(
    request: ConsoleRequest,
    uuid: str,
    *,
    status: int = 200,
    problem: Problem | None = None,
    typed: dict[str, Any] | None = None,
    lost: Form | None = None,
    before: dict[str, Any] | None = None,
    is_revoked: bool = False,
) -> Response[bytes]:
    """The page; with `problem`, after a form was refused, and with what was `typed` into it. If
    another person was first, `lost` is the form.
    """
    visitor = visitor_of(request)
    device, explanation, happened, reported, names = await asyncio.gather(
        device_of(request, uuid),
        _explanation(request, uuid),
        timeline.get_device_timeline.fn(request, uuid),
        device_reports.get_device_reports.fn(request, uuid),
        broker_names(request),
    )
    seen = seen_of(device)
    return page(
        request,
        "device.html",
        status=status,
        device=device,
        path_of_device=path_of(uuid),
        explanation=explanation,
        timeline=happened,
        reports=reported.items,
        json_text=_json_text,
        events=EVENTS,
        other_event=OTHER_EVENT,
        brokers=names,
        problem=problem,
        errors=errors_of(problem) if problem else {},
        typed=typed or {},
        seen=seen,
        race=changed_since(lost, seen, typed or {}, names),
        before=before or {},
        is_revoked=is_revoked,
        may_change=visitor.may(devices.update_device),
        may_revoke=visitor.may(devices.revoke_credentials),
        may_delete=visitor.may(devices.delete_device),
        may_see_keys=visitor.may(provisioning_keys.get_provisioning_key),
        may_see_jobs=visitor.may(jobs.list_jobs),
    )


async def _explanation(request: ConsoleRequest, uuid: str) -> Any:
    """The explanation, or the problem why there is none: the rest of the page needs none."""
    try:
        return await resolution.explain_device.fn(request, uuid)
    except MooringError as error:
        return problem_of(request, error)


def _json_text(value: Any) -> str:
    """The changed fields of an event, as JSON."""
    return msgspec.json.encode(value).decode()


ROUTES = Router("/devices", route_handlers=[device_page])
