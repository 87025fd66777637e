"""Whether devices could connect to a broker, also with settings that are not saved.

The page opens beside the form, so that what was typed stays there. Its steps are sent as they end.
"""

from collections.abc import AsyncIterator
from typing import Any

from litestar import post
from litestar.response import Stream
from mooring.broker.v1 import brokers_pb2

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import broker_tests
from gateway.administration.broker_tests import BrokerTestStep
from gateway.administration.broker_types import fields_of
from gateway.administration.fields import PathId, mask, named
from gateway.console.brokers.fields import FIELDS, body, changed, shown, typed
from gateway.console.brokers.new import NEW_TICKS
from gateway.console.brokers.shell import broker_of, path_of
from gateway.console.forms import body_of, form_of
from gateway.console.pages import HEADERS, page, problem_of
from gateway.console.templates import rendered
from gateway.console.visitor import ConsoleRequest

# Where the steps stand in the page.
STEPS = b"<!-- steps -->"
UNBUFFERED = {**HEADERS, **broker_tests.HEADERS}


@post("/test", access=Access.OPERATOR, action="broker.test", status_code=200)
async def test_new_broker(request: ConsoleRequest) -> Stream:
    """Tests the broker in the form of a new one."""
    form = await form_of(request)
    values = typed(form, NEW_TICKS)
    # A broker can be tested before it has a name, which the test does not use.
    given = {"name": "new"} | body(form, changed(values, dict.fromkeys(FIELDS, "")))
    data = named(body_of(broker_tests.test_new_broker, given))
    question = brokers_pb2.TestBrokerRequest(fields=fields_of(data))
    return await _page(request, question, values["name"], "/console/brokers/new")


@post("/{broker_id:int}/test", access=Access.OPERATOR, action="broker.test", status_code=200)
async def test_broker(request: ConsoleRequest, broker_id: PathId) -> Stream:
    """Tests a broker with the changes in the form of its settings."""
    form = await form_of(request)
    now = await broker_of(request, broker_id)
    given = body(form, changed(typed(form), shown(now))) if "host" in form else {}
    data = named(body_of(broker_tests.test_broker, given))
    question = brokers_pb2.TestBrokerRequest(
        id=broker_id, fields=fields_of(data), update_mask=mask(data)
    )
    return await _page(request, question, now.name, path_of(broker_id), changes=len(given))


async def _page(
    request: ConsoleRequest,
    question: brokers_pb2.TestBrokerRequest,
    name: str,
    back: str,
    changes: int = 0,
) -> Stream:
    """The page. The first step is awaited, so that a refusal is a page of its own."""
    steps = broker_tests.tested(request.auth, question)
    first = await anext(steps)
    whole = page(request, "broker_test.html", name=name, back=back, changes=changes)
    before, _, after = whole.content.partition(STEPS)
    return Stream(
        _parts(request, before, first, steps, after), media_type="text/html", headers=UNBUFFERED
    )


async def _parts(
    request: ConsoleRequest,
    before: bytes,
    step: BrokerTestStep,
    steps: AsyncIterator[BrokerTestStep],
    after: bytes,
) -> AsyncIterator[bytes]:
    has_passed = step.state != "failed"
    yield before + rendered("broker_test_step.html", step=step)
    problem: Any = None
    try:
        async for step in steps:
            has_passed = has_passed and step.state != "failed"
            yield rendered("broker_test_step.html", step=step)
    except MooringError as error:
        problem = problem_of(request, error)
    yield rendered("broker_test_end.html", has_passed=has_passed, problem=problem) + after
