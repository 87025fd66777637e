"""Every route documents the errors of its kind, which follow from its policy and its input."""

import json
from typing import Any

import pytest
from litestar.handlers import HTTPRouteHandler

import gateway.app
from chassis.trust import Access, access_of
from gateway.reasons import MEANINGS, USUAL

MEDIA_TYPE = "application/problem+json"
DOCUMENT: dict[str, Any] = json.loads(gateway.app.document())
OPERATIONS = {
    operation["operationId"]: operation
    for operations in DOCUMENT["paths"].values()
    for operation in operations.values()
}
HANDLERS = {
    handler.handler_name: handler
    for route in gateway.app.served().routes
    for handler in getattr(route, "route_handlers", ())
    # Not OPTIONS, which Litestar adds to each path, nor the documentation itself and the console.
    if isinstance(handler, HTTPRouteHandler) and handler.http_methods != {"OPTIONS"}
    if handler.resolve_include_in_schema()
}


def operations_of(name: str) -> list[dict[str, Any]]:
    """A handler with several methods has an operation for each."""
    methods = HANDLERS[name].http_methods
    names = [name] if len(methods) == 1 else [f"{name}_{method.lower()}" for method in methods]
    return [OPERATIONS[one] for one in names]


def reasons_of(operation: dict[str, Any], status: int) -> set[str]:
    response = operation["responses"].get(str(status), {})
    content = response.get("content", {}).get(MEDIA_TYPE)
    return set(content["schema"]["allOf"][1]["properties"]["reason"]["enum"]) if content else set()


@pytest.mark.parametrize("name", sorted(HANDLERS))
def test_a_route_documents_the_errors_of_its_kind(name: str) -> None:
    handler = HANDLERS[name]
    for operation in operations_of(name):
        is_open = access_of(handler.opt["access"]) is Access.OPEN
        places = {parameter["in"] for parameter in operation.get("parameters", ())}
        takes_body = "requestBody" in operation
        expected = {
            **dict.fromkeys((401, 403, 429), not is_open),
            412: "action" in handler.opt,
            **dict.fromkeys((413, 415), takes_body),
            422: takes_body or "query" in places,
            404: "path" in places,
            **dict.fromkeys((400, 500), True),
            503: name != "readyz",
        }
        for status, is_expected in expected.items():
            if is_expected:
                assert set(USUAL[status]) <= reasons_of(operation, status), (name, status)
        statuses = {status for status, is_expected in expected.items() if is_expected}
        own = {MEANINGS[reason][0] for reason in handler.opt.get("reasons", ())}
        documented = {int(status) for status in operation["responses"]}
        assert {status for status in documented if status >= 400} <= statuses | own | {503}, name


@pytest.mark.parametrize("name", sorted(HANDLERS))
def test_a_route_documents_only_its_own_reasons(name: str) -> None:
    usual = {reason for reasons in USUAL.values() for reason in reasons}
    own = HANDLERS[name].opt.get("reasons", ())
    assert len(set(own)) == len(own)
    assert set(own) <= MEANINGS.keys() - usual
    for reason in own:
        for operation in operations_of(name):
            assert reason in reasons_of(operation, MEANINGS[reason][0]), (name, reason)


def test_every_operation_has_a_route() -> None:
    assert len(HANDLERS) > 60
    found = {operation["operationId"] for name in HANDLERS for operation in operations_of(name)}
    assert found == OPERATIONS.keys() - {"register", "mqtt", "report", "rotate"}
