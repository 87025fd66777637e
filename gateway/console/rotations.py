"""Replacing a certificate, step by step: stage, wait for the devices, cut over."""

from typing import Any

from litestar import Response, Router, get, post
from litestar.params import FromQuery

from gateway.administration import certificate_rotation as rotations
from gateway.administration.certificate_rotation import Rotation, ToldGeneration
from gateway.administration.certificate_types import Certificate
from gateway.administration.fields import PathId
from gateway.administration.listing import Cursor
from gateway.console.certificates import LIST, SHOWN_IN_PLACE, certificate_of, refused_page
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import page, see_other
from gateway.console.visitor import ConsoleRequest, permitted, visitor_of

ON_A_PAGE = 50
FIELDS = ("pem", "name", "replacement_id", "threshold_percent")


@get("/{certificate_id:int}/rotation", access=rotations.get_rotation.opt["access"])
async def rotation(request: ConsoleRequest, certificate_id: PathId) -> Response[bytes]:
    """The steps of a rotation, with the form of the next one."""
    return page(request, "rotation.html", **await _values_of(request, certificate_id, Form([])))


async def _values_of(request: ConsoleRequest, certificate_id: int, form: Form) -> dict[str, Any]:
    certificate = await certificate_of(request, certificate_id)
    progress: Rotation | None = None
    replacement: Certificate | None = None
    if certificate.replacement_id is not None:
        progress = await rotations.get_rotation.fn(request, certificate_id=certificate_id)
        replacement = await certificate_of(request, progress.replacement_id)
    visitor = visitor_of(request)
    return {
        "certificate": certificate,
        "progress": progress,
        "replacement": replacement,
        "may_change": visitor.may(rotations.stage_rotation),
        "typed": {name: form.verbatim(name) for name in FIELDS},
        "problem": None,
        "errors": {},
    }


@post(
    "/{certificate_id:int}/rotation",
    access=rotations.stage_rotation.opt["access"],
    action=rotations.stage_rotation.opt["action"],
    status_code=200,
)
async def stage_rotation(request: ConsoleRequest, certificate_id: PathId) -> Response[Any]:
    """Names the replacement. From then on devices get both certificates."""
    form = await form_of(request)
    try:
        body = body_of(rotations.stage_rotation, _staged(form))
        await rotations.stage_rotation.fn(request, certificate_id=certificate_id, data=body)
    except SHOWN_IN_PLACE as error:
        values = await _values_of(request, certificate_id, form)
        return refused_page(request, "rotation.html", error, **values)
    return see_other(_path(certificate_id))


def _staged(form: Form) -> dict[str, Any]:
    """The form as the JSON route takes it; an empty field is left out."""
    values: dict[str, Any] = {}
    if (replacement_id := form.number("replacement_id")) is not None:
        values["replacement_id"] = replacement_id
    if pem := form.verbatim("pem").strip():
        replacement = {"pem": pem}
        if name := form.text("name"):
            replacement["name"] = name
        if private_key := form.verbatim("private_key").strip():
            replacement["private_key"] = private_key
        values["replacement"] = replacement
    threshold = form.number("threshold_percent")
    if threshold is not None:
        values["threshold_percent"] = threshold
    return values


def _path(certificate_id: int) -> str:
    return f"{LIST}/{certificate_id}/rotation"


@get("/{certificate_id:int}/rotation/devices", access=rotations.list_rotation_devices.opt["access"])
async def rotation_devices(
    request: ConsoleRequest,
    certificate_id: PathId,
    told: FromQuery[ToldGeneration] = "old",
    cursor: Cursor = "",
) -> Response[bytes]:
    """The devices that have the old certificate, both, or the new one alone."""
    values = await _values_of(request, certificate_id, Form([]))
    listed: Any = await rotations.list_rotation_devices.fn(
        request, certificate_id=certificate_id, told=told, limit=ON_A_PAGE, cursor=cursor
    )
    return page(
        request,
        "rotation_devices.html",
        **values,
        told=told,
        devices=listed.items,
        next_cursor=listed.next_cursor,
    )


@post(
    "/{certificate_id:int}/rotation/cutover",
    access=rotations.cut_over_rotation.opt["access"],
    action=rotations.cut_over_rotation.opt["action"],
    status_code=200,
)
async def cut_over_rotation(request: ConsoleRequest, certificate_id: PathId) -> Response[Any]:
    """Makes all brokers use the replacement alone. It is refused while that is not safe."""
    form = await form_of(request)
    try:
        body = body_of(rotations.cut_over_rotation, {})
        made: Any = await rotations.cut_over_rotation.fn(
            request, certificate_id=certificate_id, data=body
        )
    except SHOWN_IN_PLACE as error:
        values = await _values_of(request, certificate_id, form)
        return refused_page(request, "rotation.html", error, **values)
    return see_other(f"{LIST}/{made.id}")


@get(
    "/{certificate_id:int}/rotation/cancel",
    access=rotations.cancel_rotation.opt["access"],
    guards=[permitted],
)
async def confirm_cancelling(request: ConsoleRequest, certificate_id: PathId) -> Response[bytes]:
    """What cancelling would do."""
    values = await _values_of(request, certificate_id, Form([]))
    return page(request, "rotation_cancel.html", **values)


@post(
    "/{certificate_id:int}/rotation/cancel",
    access=rotations.cancel_rotation.opt["access"],
    action=rotations.cancel_rotation.opt["action"],
    status_code=200,
)
async def cancel_rotation(request: ConsoleRequest, certificate_id: PathId) -> Response[Any]:
    """Ends the rotation; brokers use the old certificate alone again."""
    await form_of(request)
    await rotations.cancel_rotation.fn(request, certificate_id=certificate_id)
    return see_other(f"{LIST}/{certificate_id}")


ROUTES = Router(
    "/certificates",
    route_handlers=[
        rotation,
        stage_rotation,
        rotation_devices,
        cut_over_rotation,
        confirm_cancelling,
        cancel_rotation,
    ],
)
