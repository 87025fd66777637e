"""Acting on a job by `ActOnJob` or by one of the methods that it replaces is the same."""

from typing import Any

import pytest
from mooring.registry.v1 import jobs_pb2 as pb
from mooring.registry.v1 import jobs_pb2_grpc

from chassis.errors import Conflict, Forbidden, InvalidInput
from chassis.trust import Access, Actor
from tests.integration.registry_service.audit.test_audit_log import OPERATOR, VIEWER, lines, until
from tests.stack import Stack

RESTRICTED = Actor("rita", Access.OPERATOR, "id-of-rita", frozenset({"demo"}))
# In this order, each action is allowed after the one before.
ACTIONS = ("start", "pause", "resume", "cancel", "undo")
STATES = ("running", "paused", "running", "cancelled", "running")
WAYS = ("ActOnJob", "a method of its own")


async def ask(stack: Stack, method: str, request: Any, actor: Actor) -> Any:
    return await stack.registry.ask(jobs_pb2_grpc.JobServiceStub, method, request, actor=actor)


async def draft(stack: Stack) -> int:
    request = pb.CreateJobRequest(kind="assign", filter=pb.DeviceFilter())
    return int((await ask(stack, "CreateJob", request, OPERATOR)).job.id)


async def act(stack: Stack, way: str, job_id: int, action: str, actor: Actor = OPERATOR) -> pb.Job:
    if way == "ActOnJob":
        number = pb.JobAction.Value(f"JOB_ACTION_{action.upper()}")
        request: Any = pb.ActOnJobRequest(id=job_id, action=number)
        answer = await ask(stack, "ActOnJob", request, actor)
    else:
        method = f"{action.capitalize()}Job"
        request = getattr(pb, f"{method}Request")(id=job_id)
        answer = await ask(stack, method, request, actor)
    found: pb.Job = answer.job
    return found


def test_every_action_is_tried_and_the_methods_before_are_deprecated() -> None:
    assert {f"JOB_ACTION_{action.upper()}" for action in ACTIONS} == set(pb.JobAction.keys()) - {
        "JOB_ACTION_UNSPECIFIED"
    }
    methods = pb.DESCRIPTOR.services_by_name["JobService"].methods
    deprecated = {method.name for method in methods if method.GetOptions().deprecated}
    assert deprecated == {f"{action.capitalize()}Job" for action in ACTIONS}


@pytest.mark.parametrize("way", WAYS)
async def test_each_action_has_its_effect_and_its_line(stack: Stack, way: str) -> None:
    job_id = await draft(stack)
    assert [(await act(stack, way, job_id, action)).state for action in ACTIONS] == [*STATES]
    done = [
        (line.actor, line.action) for line in await lines(stack, subject=str(job_id), action="job.")
    ]
    wanted = ["job.create", *(f"job.{action}" for action in ACTIONS)]
    assert done[::-1] == [(OPERATOR.name, action) for action in wanted]


@pytest.mark.parametrize("way", WAYS)
async def test_refusals_name_the_action(stack: Stack, way: str) -> None:
    job_id = await draft(stack)
    for actor in (VIEWER, RESTRICTED):
        for action in ACTIONS:
            with pytest.raises(Forbidden):
                await act(stack, way, job_id, action, actor)
    for action in ("pause", "resume", "undo"):
        with pytest.raises(Conflict):
            await act(stack, way, job_id, action)
    found = await until(stack, 13, refused_only=True)
    noted = {(line.actor, line.action, line.subject, line.refusal) for line in found}
    assert noted == {
        *(
            (actor.name, f"job.{action}", str(job_id), "FORBIDDEN")
            for actor in (VIEWER, RESTRICTED)
            for action in ACTIONS
        ),
        *(
            (OPERATOR.name, f"job.{action}", str(job_id), "JOB_STATE_FORBIDS")
            for action in ("pause", "resume", "undo")
        ),
    }
    answer = await ask(stack, "GetJob", pb.GetJobRequest(id=job_id), VIEWER)
    assert answer.job.state == "draft"


@pytest.mark.parametrize("number", [0, 99])
async def test_an_unknown_action_is_refused(stack: Stack, number: int) -> None:
    job_id = await draft(stack)
    request = pb.ActOnJobRequest(id=job_id)
    # Enumerations of proto3 are open: newer callers may send values that are not known yet.
    request.MergeFromString(b"\x10" + bytes([number]))
    with pytest.raises(InvalidInput) as refused:
        await ask(stack, "ActOnJob", request, OPERATOR)
    assert refused.value.field == "action"
