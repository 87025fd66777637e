"""The error tree and its mapping to gRPC are total."""

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

import broker_service.errors
import registry_service.errors
from chassis import errors
from chassis.errors import (
    CLASS_OF_CODE,
    CODE_OF_NUMBER,
    MooringError,
    from_item,
    from_rpc,
    to_item,
    trailers_of,
)

FACTS = list(
    dict.fromkeys(
        kind
        for module in (errors, broker_service.errors, registry_service.errors)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, MooringError) and kind is not MooringError
    )
)


def test_every_code_becomes_a_class() -> None:
    assert set(CLASS_OF_CODE) == set(grpc.StatusCode)
    assert set(CODE_OF_NUMBER.values()) == set(grpc.StatusCode)


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_stable_reason_and_a_code(kind: type[MooringError]) -> None:
    assert kind.reason == kind.reason.upper() != "UNKNOWN"
    assert issubclass(kind, CLASS_OF_CODE[kind.code])
    assert (kind("x").retry_after_s > 0) == (
        issubclass(kind, errors.Overloaded | errors.Unavailable | errors.DeadlineExceeded)
    )


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.__name__)
def test_an_error_is_transferred_completely(kind: type[MooringError]) -> None:
    sent = kind("what happened", field="uuid", retry_after_s=2.5)
    failed = AioRpcError(sent.code, Metadata(), Metadata(*trailers_of(sent)), details=sent.message)
    for received in (from_rpc(failed), from_item(to_item(sent))):
        assert type(received) is CLASS_OF_CODE[kind.code]
        assert (received.reason, received.message) == (kind.reason, "what happened")
        assert (received.field, received.retry_after_s) == ("uuid", 2.5)


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_an_error_of_another_server_does_not_reveal_its_origin(code: grpc.StatusCode) -> None:
    failed = AioRpcError(code, Metadata(), Metadata(), details="connect to 10.0.0.1:50051")
    assert "10.0.0.1" not in from_rpc(failed).message
    assert type(from_rpc(failed)) is CLASS_OF_CODE[code]


def test_reasons_are_unique() -> None:
    """Two services may use the same reason if they mean the same."""
    facts = {(kind.reason, kind.__name__, kind.code) for kind in FACTS}
    assert len({reason for reason, _, _ in facts}) == len(facts)
