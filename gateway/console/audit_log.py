"""The audit log: who changed what, with the values before and after, and what was refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from litestar import Response, Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, QueryParameter
from litestar.response import Stream
from msgspec.structs import asdict

from chassis.errors import InvalidInput
from chassis.trust import Access
from gateway.administration import audit_log, audit_seals
from gateway.administration.audit_log import AuditLine
from gateway.administration.listing import Cursor
from gateway.console.changes import errors_of, in_utc, own_address, problem_in_place
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest

ON_A_PAGE = 50
# A longer value is cut on the page; the export has it all.
MAX_CHARACTERS = 300
HOME = "/console/audit-log"
# The page of what a line is about, by the noun of its action. The subject is its id or uuid.
PAGES = {
    "broker": "/console/brokers/",
    "certificate": "/console/certificates/",
    "device": "/console/devices/",
    "fleet": "/console/fleets/",
    "job": "/console/jobs/",
    "pool": "/console/pools/",
    "provisioning_key": "/console/provisioning-keys/",
    "region": "/console/regions/",
    "rollout": "/console/fleets/",
    "service_account": "/console/service-accounts/",
    "token": "/console/tokens/",
}
Text = Annotated[str, QueryParameter(max_length=1_000)]


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a person filters by, as in the form."""

    actor: str
    actor_id: str
    action: str
    subject: str
    since: str
    until: str
    refused_only: bool

    def question(self) -> Any:
        """The question for the registry. Raises `InvalidInput`."""
        values = asdict(self)
        for name in ("since", "until"):
            values[name] = in_utc(values[name]) or None
        return audit_log.question(**values)

    def query(self) -> dict[str, str]:
        """The filters that are set, for links."""
        texts = {name: str(value) for name, value in asdict(self).items() if value}
        return {**texts, "refused_only": "true"} if self.refused_only else texts


def _filters(
    actor: Text = "",
    actor_id: Text = "",
    action: Text = "",
    subject: Text = "",
    since: Text = "",
    until: Text = "",
    refused_only: FromQuery[bool] = False,
) -> Filters:
    return Filters(
        actor=actor.strip(),
        actor_id=actor_id.strip(),
        action=action.strip(),
        subject=subject.strip(),
        since=since.strip(),
        until=until.strip(),
        refused_only=refused_only,
    )


Filtered = NamedDependency[Filters]


@dataclass(frozen=True, slots=True)
class Difference:
    """A field with its values before and after, as texts; None where it had none."""

    field: str
    before: str | None
    after: str | None


def differences(line: AuditLine) -> list[Difference]:
    """The fields that a change names, in the order of their names."""
    before, after = _decoded(line.before), _decoded(line.after)
    return [
        Difference(name, _text(before, name), _text(after, name))
        for name in sorted({*before, *after})
    ]


def _decoded(raw: Any) -> Mapping[str, Any]:
    """A field of a line, which the route passes on as JSON that is not read yet."""
    found = msgspec.json.decode(raw) if isinstance(raw, msgspec.Raw) else raw
    return found if isinstance(found, dict) else {}


def _text(values: Mapping[str, Any], name: str) -> str | None:
    if name not in values:
        return None
    value = values[name]
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if len(text) > MAX_CHARACTERS:
        return f"{text[:MAX_CHARACTERS]}… ({len(text):,} characters)"
    return text or "empty"


def details(line: AuditLine) -> list[tuple[str, str | None]]:
    """The details of a line that stands for several attempts."""
    found = _decoded(line.details)
    return [(name, _text(found, name)) for name in found]


def page_of(line: AuditLine) -> str:
    """The path of the page of what a line is about; empty if it has none."""
    home = PAGES.get(line.action.partition(".")[0], "")
    is_plain = line.subject.replace("-", "").replace("_", "").isalnum() and line.subject.isascii()
    return home + line.subject if home and is_plain else ""


@get("/", access=Access.ADMIN)
async def lines(request: ConsoleRequest, filters: Filtered, cursor: Cursor = "") -> Response[bytes]:
    """A page of lines, the newest first."""
    listed: Any = None
    problem = None
    seals = await audit_seals.get_audit_seals.fn(request)
    try:
        listed = await audit_log.list_audit_log.fn(
            request, filters.question(), limit=ON_A_PAGE, cursor=cursor
        )
    except InvalidInput as error:
        problem = problem_in_place(request, error)
    found = listed.items if listed else []
    query = filters.query()
    return page(
        request,
        "audit_log.html",
        status=problem.status if problem else 200,
        lines=[(line, differences(line), details(line), page_of(line)) for line in found],
        next_query={**query, "cursor": listed.next_cursor}
        if listed and listed.next_cursor
        else None,
        seals=seals,
        filters=filters,
        query=query,
        problem=problem,
        errors=errors_of(problem) if problem else {},
        address=own_address(request),
    )


@get("/export", access=Access.ADMIN)
async def export(request: ConsoleRequest, filters: Filtered) -> Stream:
    """All lines that match, as a file."""
    stream: Stream = await audit_log.export_audit_log.fn(request, filters.question())
    stream.headers["Content-Disposition"] = 'attachment; filename="audit-log.ndjson"'
    stream.headers["Cache-Control"] = "no-store"
    return stream


ROUTES = Router(
    "/audit-log",
    route_handlers=[lines, export],
    dependencies={"filters": Provide(_filters, sync_to_thread=False)},
)
