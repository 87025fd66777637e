"""The one table from gRPC's codes to HTTP's, and the document of every error."""

import math
from typing import Any

import grpc
import msgspec
import pytest
from litestar.exceptions import HTTPException, MethodNotAllowedException

from chassis.errors import CLASS_OF_CODE, InvalidInput, MooringError, Overloaded
from gateway import problems

EXPECTED = {
    "OK": 500,
    "CANCELLED": 503,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 422,
    "DEADLINE_EXCEEDED": 503,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 503,
    "FAILED_PRECONDITION": 409,
    "ABORTED": 412,
    "OUT_OF_RANGE": 422,
    "UNIMPLEMENTED": 503,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}


def sent(error: MooringError) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Status, headers and document."""
    response = problems.of_error(error)
    assert response.status_code is not None
    document = msgspec.json.decode(msgspec.json.encode(response.content))
    return response.status_code, dict(response.headers), document


def test_the_table_is_total_and_as_documented() -> None:
    assert set(problems.STATUS_OF_CODE) == set(grpc.StatusCode)
    assert {code.name: status for code, status in problems.STATUS_OF_CODE.items()} == EXPECTED


@pytest.mark.parametrize("kind", sorted(set(CLASS_OF_CODE.values()), key=str))
def test_every_error_of_the_tree_becomes_a_problem_of_its_status(
    kind: type[MooringError],
) -> None:
    status, headers, document = sent(kind("why"))
    assert status == EXPECTED[kind.code.name]
    assert document["status"] == status
    assert document["reason"] == kind.reason
    assert document["detail"] == "why"
    assert set(document) == {"type", "title", "status", "detail", "reason", "request_id"}
    assert headers["Cache-Control"] == "no-store"
    assert ("WWW-Authenticate" in headers) == (status == 401)
    assert ("Retry-After" in headers) == (status == 503)


def test_a_field_is_named_if_there_is_one() -> None:
    _, _, document = sent(InvalidInput("must be shorter", field="deviceName"))
    assert document["field"] == "deviceName"


@pytest.mark.parametrize("asked_s", [0.0, 0.2, 1.0, 2.1, 40.0])
def test_retry_after_is_in_whole_seconds_never_too_early_and_spread(
    asked_s: float,
) -> None:
    said = {
        int(sent(Overloaded("later", retry_after_s=asked_s))[1]["Retry-After"]) for _ in range(200)
    }
    assert min(said) >= max(1, asked_s)
    assert max(said) <= max(1, math.ceil(asked_s * problems.MAX_SPREAD))
    assert len(said) > 1 or asked_s < 1


def test_details_of_the_framework_are_not_shown() -> None:
    handler: Any = problems.HANDLERS[HTTPException]
    response = handler(None, HTTPException(detail="a Python type", status_code=418))
    assert response.status_code == 400
    assert b"Python" not in msgspec.json.encode(response.content)


def test_a_method_not_allowed_lists_the_allowed_ones() -> None:
    handler: Any = problems.HANDLERS[HTTPException]
    error = MethodNotAllowedException(headers={"allow": "OPTIONS, PUT, GET"})
    response = handler(None, error)
    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, HEAD, PUT"
