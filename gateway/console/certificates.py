"""The certificates: a list by their ends, a preview before one is saved, and where one is used."""

import asyncio
from typing import Any, Literal

from litestar import Response, Router, get, post
from litestar.params import FromQuery

from chassis.errors import AlreadyExists, Conflict, InvalidInput, LostRace, MooringError
from gateway.administration import brokers, certificates
from gateway.administration.certificate_types import Certificate
from gateway.administration.certificates import PartOfName
from gateway.administration.fields import PathId
from gateway.administration.listing import Cursor
from gateway.console.broker_names import NO_NAMES
from gateway.console.changes import changed_since, lost_in, own_address, seen_revision
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import page, problem_of, see_other
from gateway.console.visitor import ConsoleRequest, permitted, visitor_of
from gateway.problems import Problem

LIST = "/console/certificates"
ON_A_PAGE = 50
# The brokers that the page of a certificate names; their list has all of them.
BROKERS_SHOWN = 10
# Refusals that are shown above the form, with what was typed.
SHOWN_IN_PLACE = (InvalidInput, AlreadyExists, Conflict, LostRace)
FIELDS = ("kind", "name", "pem")


@get("/", access=certificates.list_certificates.opt["access"])
async def certificate_list(
    request: ConsoleRequest,
    cursor: Cursor = "",
    text: PartOfName = "",
    kind: FromQuery[Literal["", "ca", "client"]] = "",
    is_used: FromQuery[Literal["", "true", "false"]] = "",
) -> Response[bytes]:
    """A page of certificates; those that end first come first."""
    listed: Any = await certificates.list_certificates.fn(
        request,
        limit=ON_A_PAGE,
        cursor=cursor,
        kind=kind or None,
        order="not_after",
        is_used=is_used == "true" if is_used else None,
        text=text,
    )
    return page(
        request,
        "certificates.html",
        certificates=listed.items,
        next_cursor=listed.next_cursor,
        text=text,
        kind=kind,
        is_used=is_used,
        may_upload=visitor_of(request).may(certificates.create_certificate),
        address=own_address(request),
    )


@get("/new", access=certificates.create_certificate.opt["access"], guards=[permitted])
async def new_certificate(request: ConsoleRequest) -> Response[bytes]:
    """The form for an upload."""
    return page(request, "certificate_new.html", **_form_values(Form([])))


@post("/check", access=certificates.check_certificate.opt["access"], status_code=200)
async def check_certificate(request: ConsoleRequest) -> Response[bytes]:
    """The form with a preview of what it would store; for a script, only the preview. The private
    key is read and not sent back.
    """
    form = await form_of(request)
    values = _form_values(form)
    try:
        body = body_of(certificates.check_certificate, _values_of(form))
        values["preview"] = await certificates.check_certificate.fn(request, data=body)
    except SHOWN_IN_PLACE as error:
        values |= _refusal(problem_of(request, error))
    return page(request, "certificate_new.html", **values)


@post(
    "/",
    access=certificates.create_certificate.opt["access"],
    action=certificates.create_certificate.opt["action"],
    status_code=200,
)
async def create_certificate(request: ConsoleRequest) -> Response[Any]:
    """Stores the certificate of the form."""
    form = await form_of(request)
    try:
        body = body_of(certificates.create_certificate, _values_of(form))
        made: Any = await certificates.create_certificate.fn(request, data=body)
    except SHOWN_IN_PLACE as error:
        return refused_page(request, "certificate_new.html", error, **_form_values(form))
    return see_other(f"{LIST}/{made.content.id}")


def _values_of(form: Form) -> dict[str, Any]:
    """The form as the JSON route takes it; an empty field is left out."""
    values: dict[str, Any] = {"kind": form.text("kind"), "pem": form.verbatim("pem")}
    if name := form.text("name"):
        values["name"] = name
    if private_key := form.verbatim("private_key").strip():
        values["private_key"] = private_key
    return values


def _form_values(form: Form) -> dict[str, Any]:
    """What the template needs to show the form with what was typed, without the private key."""
    typed = {name: form.verbatim(name) for name in FIELDS}
    return {"typed": typed, "preview": None, "problem": None, "errors": {}}


def _refusal(problem: Problem) -> dict[str, Any]:
    """What a template needs to show a refusal: above the form, and at the field."""
    field = problem.field if isinstance(problem.field, str) else ""
    return {"problem": problem, "errors": {field.rpartition(".")[2]: problem.detail}}


def refused_page(
    request: ConsoleRequest, template: str, error: MooringError, **values: Any
) -> Response[bytes]:
    """The page of a form again, with why it was refused."""
    refusal = _refusal(problem_of(request, error))
    return page(request, template, status=refusal["problem"].status, **{**values, **refusal})


@get("/{certificate_id:int}", access=certificates.get_certificate.opt["access"])
async def one_certificate(request: ConsoleRequest, certificate_id: PathId) -> Response[bytes]:
    """A certificate: its chain, its warnings, and the brokers that use it."""
    return page(request, "certificate.html", **await _values_of_one(request, certificate_id))


async def certificate_of(request: ConsoleRequest, certificate_id: int) -> Certificate:
    """The certificate. Raises `CertificateNotFound`."""
    answer: Any = await certificates.get_certificate.fn(request, certificate_id=certificate_id)
    certificate: Certificate = answer.content
    return certificate


async def _values_of_one(
    request: ConsoleRequest, certificate_id: int, lost: Form | None = None
) -> dict[str, Any]:
    """What the pages of a certificate show. If another person was first, `lost` is the form."""
    users: Any
    certificate, users = await asyncio.gather(
        certificate_of(request, certificate_id),
        brokers.list_brokers.fn(request, limit=BROKERS_SHOWN, certificate_id=certificate_id),
    )
    visitor = visitor_of(request)
    seen = {"name": certificate.name}
    typed = {"name": lost.text("name")} if lost is not None and "name" in lost else {}
    return {
        "certificate": certificate,
        "users": users.items,
        "may_change": visitor.may(certificates.rename_certificate),
        "name": certificate.name,
        "seen": seen,
        "typed": typed,
        "race": changed_since(lost, seen, typed, NO_NAMES),
        "problem": None,
        "errors": {},
    }


@post(
    "/{certificate_id:int}/rename",
    access=certificates.rename_certificate.opt["access"],
    action=certificates.rename_certificate.opt["action"],
    status_code=200,
)
async def rename_certificate(request: ConsoleRequest, certificate_id: PathId) -> Response[Any]:
    """Changes the name."""
    form = await form_of(request)
    name = form.text("name")
    try:
        body = body_of(certificates.rename_certificate, {"name": name})
        await certificates.rename_certificate.fn(
            request, certificate_id=certificate_id, data=body, if_revision=seen_revision(form)
        )
    except SHOWN_IN_PLACE as error:
        values = await _values_of_one(request, certificate_id, lost_in(form, error))
        return refused_page(request, "certificate.html", error, **{**values, "name": name})
    return see_other(f"{LIST}/{certificate_id}")


@get(
    "/{certificate_id:int}/delete",
    access=certificates.delete_certificate.opt["access"],
    guards=[permitted],
)
async def confirm_deletion(request: ConsoleRequest, certificate_id: PathId) -> Response[bytes]:
    """What a deletion would do."""
    values = await _values_of_one(request, certificate_id)
    return page(request, "certificate_delete.html", **values)


@post(
    "/{certificate_id:int}/delete",
    access=certificates.delete_certificate.opt["access"],
    action=certificates.delete_certificate.opt["action"],
    status_code=200,
)
async def delete_certificate(request: ConsoleRequest, certificate_id: PathId) -> Response[Any]:
    """Deletes the certificate."""
    form = await form_of(request)
    try:
        await certificates.delete_certificate.fn(
            request, certificate_id=certificate_id, if_revision=seen_revision(form)
        )
    except SHOWN_IN_PLACE as error:
        values = await _values_of_one(request, certificate_id, lost_in(form, error))
        return refused_page(request, "certificate_delete.html", error, **values)
    return see_other(LIST)


ROUTES = Router(
    "/certificates",
    route_handlers=[
        certificate_list,
        new_certificate,
        check_certificate,
        create_certificate,
        one_certificate,
        rename_certificate,
        confirm_deletion,
        delete_certificate,
    ],
)
