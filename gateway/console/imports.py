"""Importing devices: the verdict for each row of a file before anything is written, then the import
itself.
"""

from itertools import chain
from typing import Any

import msgspec
from litestar import Response, Router, get, post

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration.importing import ImportedRow, ImportEnd
from gateway.administration.imports import ImportedDevice, devices_imported
from gateway.console.changes import errors_of, own_address, problem_in_place
from gateway.console.forms import Form, form_of
from gateway.console.pages import page
from gateway.console.pasted import stream_of, type_of
from gateway.console.visitor import ConsoleRequest, permitted
from gateway.problems import Problem

# Rows that are shown, the refused ones first. The numbers at the top count all rows.
SHOWN = 500
ORDER = ("refused", "created", "existing")
COLUMNS = ImportedDevice.__struct_fields__


@get("/devices", access=Access.OPERATOR, guards=[permitted])
async def import_page(request: ConsoleRequest) -> Response[bytes]:
    """The form."""
    return _page(request)


@post("/devices/check", access=Access.OPERATOR, action="device.import", status_code=200)
async def check_import(request: ConsoleRequest) -> Response[bytes]:
    """What the import would do with each row. Nothing is written."""
    return await _answer(request, await form_of(request), is_dry_run=True)


@post("/devices", access=Access.OPERATOR, action="device.import", status_code=200)
async def import_devices(request: ConsoleRequest) -> Response[bytes]:
    """Imports the rows, and says what became of each. Sending them again changes nothing."""
    return await _answer(request, await form_of(request), is_dry_run=False)


async def _answer(request: ConsoleRequest, form: Form, *, is_dry_run: bool) -> Response[bytes]:
    text = form.verbatim("rows")
    rows: dict[str, list[ImportedRow]] = {outcome: [] for outcome in ORDER}
    end: ImportEnd | None = None
    try:
        lines = await devices_imported(
            request.auth, stream_of(text), type_of(text), is_dry_run=is_dry_run
        )
        async for part in lines:
            for line in part.splitlines():
                read = _ROW_OR_END.decode(line)
                if "complete" in read:
                    end = msgspec.convert(read, ImportEnd)
                else:
                    row = msgspec.convert(read, ImportedRow)
                    if len(rows[row.outcome]) <= SHOWN:
                        rows[row.outcome].append(row)
    except MooringError as error:
        return _page(request, text=text, problem=problem_in_place(request, error))
    return _page(request, text=text, rows=[*chain(*rows.values())], end=end)


_ROW_OR_END = msgspec.json.Decoder(dict[str, Any])


def _page(
    request: ConsoleRequest,
    *,
    text: str = "",
    rows: list[ImportedRow] | None = None,
    end: ImportEnd | None = None,
    problem: Problem | None = None,
) -> Response[bytes]:
    shown = rows or []
    return page(
        request,
        "import.html",
        status=problem.status if problem else 200,
        text=text,
        rows=[
            {
                "line": row.line,
                "subject": row.subject,
                "outcome": row.outcome,
                "why": ""
                if row.outcome != "refused"
                else " ".join(str(word) for word in (row.field, row.detail) if word),
            }
            for row in shown[:SHOWN]
        ],
        is_cut=len(shown) > SHOWN,
        end=end,
        columns=COLUMNS,
        address=own_address(request),
        problem=problem,
        errors=errors_of(problem) if problem else {},
    )


ROUTES = Router("/imports", route_handlers=[import_page, check_import, import_devices])
