"""Whether devices could connect to a broker: tests, step by step."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from litestar import Router, post
from litestar.params import JSONBody
from litestar.response import Stream
from mooring.broker.v1 import brokers_pb2
from msgspec import Meta, Struct

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration.broker_types import BrokerChange, NewBroker, fields_of
from gateway.administration.caller import Caller, CallerRequest
from gateway.administration.fields import PathId, mask, named
from gateway.bodies import StrictJson
from gateway.documentation import LinesOf

NDJSON = "application/x-ndjson"
# Longer than all steps together may take.
WITHIN_S = 60.0
# Proxies such as nginx would collect the lines otherwise.
HEADERS = {"X-Accel-Buffering": "no"}
NOTES = (
    " Each line is sent when its step has ended: `resolve` the host, `connect` to the port, `tls` "
    "with a check of the certificate, `login` with MQTT, `round_trip` of a message. After a failed "
    "step the others are skipped. `login` uses the broker's `username` and its password; without "
    "them, it only finds out whether MQTT is answered. Nothing is stored, and a broker gets one "
    "test at a time: 409 `TEST_UNDER_WAY`."
)


class BrokerTestStep(Struct, kw_only=True, frozen=True):
    """How a step ended."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "step": "tls",
        "state": "failed",
        "reason": "CERTIFICATE_NAME_MISMATCH",
        "detail": "the broker's certificate (CN=b) is not for mqtt.example.com, but for b",
        "seconds": 0.021,
    }

    step: Literal["resolve", "connect", "tls", "login", "round_trip"]
    state: Literal["ok", "failed", "skipped"]
    reason: Annotated[str | None, Meta(description="For programs: UPPER_SNAKE, if it failed.")]
    detail: Annotated[str, Meta(description="What was found, or what is wrong.")]
    seconds: float


class BrokerTestEnd(Struct, kw_only=True, frozen=True):
    """The last line of a test. A test that ends without it was cut short."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"has_passed": False}

    has_passed: Annotated[bool, Meta(description="Whether no step failed.")]


LINES = LinesOf((BrokerTestStep, BrokerTestEnd), (BrokerTestStep.EXAMPLE, BrokerTestEnd.EXAMPLE))


async def tested(
    caller: Caller, question: brokers_pb2.TestBrokerRequest
) -> AsyncIterator[BrokerTestStep]:
    """The steps of a test, as they end. Raises the errors of the broker service."""
    answers = caller.follow_broker_service(
        caller.services.brokers.TestBroker, question, within_s=WITHIN_S
    )
    async for answer in answers:
        yield BrokerTestStep(
            step=_lower(brokers_pb2.BrokerTestStep.Name(answer.step), "BROKER_TEST_STEP_"),
            state=_lower(brokers_pb2.BrokerTestState.Name(answer.state), "BROKER_TEST_STATE_"),
            reason=answer.reason or None,
            detail=answer.detail,
            seconds=round(answer.seconds, 3),
        )


def _lower(name: str, prefix: str) -> Any:
    return name.removeprefix(prefix).lower()


async def _lines(caller: Caller, question: brokers_pb2.TestBrokerRequest) -> Stream:
    """The answer. The first step is awaited, so that a refusal is a problem document."""
    steps = tested(caller, question)
    first = await anext(steps)
    return Stream(_encoded(first, steps), media_type=NDJSON, headers=HEADERS)


async def _encoded(
    step: BrokerTestStep, steps: AsyncIterator[BrokerTestStep]
) -> AsyncIterator[bytes]:
    has_passed = step.state != "failed"
    yield msgspec.json.encode(step) + b"\n"
    try:
        async for step in steps:
            has_passed = has_passed and step.state != "failed"
            yield msgspec.json.encode(step) + b"\n"
    except MooringError:
        # The status is sent already: an answer without its last line was cut short.
        return
    yield msgspec.json.encode(BrokerTestEnd(has_passed=has_passed)) + b"\n"


@post(
    "/test",
    access=Access.OPERATOR,
    action="broker.test",
    status_code=200,
    summary="Test a broker that is not stored",
    description="Tests whether devices could connect to such a broker." + NOTES,
    dto=StrictJson[NewBroker],
    media_type=NDJSON,
    lines=LINES,
    reasons=("CERTIFICATE_UNKNOWN", "BROKER_UNKNOWN", "TEST_UNDER_WAY"),
)
async def test_new_broker(request: CallerRequest, data: JSONBody[NewBroker]) -> Stream:
    question = brokers_pb2.TestBrokerRequest(fields=fields_of(named(data)))
    return await _lines(request.auth, question)


@post(
    "/{broker_id:int}/test",
    access=Access.OPERATOR,
    action="broker.test",
    status_code=200,
    summary="Test a broker",
    description="Tests whether devices could connect to the broker, with the changes in the body; "
    "`{}` tests it as it is." + NOTES,
    dto=StrictJson[BrokerChange],
    media_type=NDJSON,
    lines=LINES,
    reasons=(
        "BROKER_NOT_FOUND",
        "BROKER_IS_DEFAULT",
        "CERTIFICATE_UNKNOWN",
        "BROKER_UNKNOWN",
        "TEST_UNDER_WAY",
    ),
)
async def test_broker(
    request: CallerRequest, broker_id: PathId, data: JSONBody[BrokerChange]
) -> Stream:
    values = named(data)
    question = brokers_pb2.TestBrokerRequest(
        id=broker_id, fields=fields_of(values), update_mask=mask(values)
    )
    return await _lines(request.auth, question)


ROUTES = Router("/brokers", route_handlers=[test_new_broker, test_broker], tags=["brokers"])
