"""Rollouts, which take a fleet to another broker in waves: `/api/v1/fleets/{id}/rollout`."""

from typing import Annotated, Any, ClassVar

from litestar import Response, Router, delete, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from mooring.registry.v1 import rollouts_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import Id
from gateway.administration.fleets import Fleet, FleetId, Rollout, fleet_answer, rollout_json
from gateway.administration.preconditions import (
    IF_REVISION,
    NOT_MODIFIED,
    IfNoneMatch,
    IfRevision,
    tagged,
    unless_known,
)
from gateway.bodies import StrictJson
from gateway.documentation import IDENTIFIER_PATTERN, documented

BEGUN = {
    201: ResponseSpec(Rollout, description="The rollout was created.", generate_examples=False)
}


class RolloutChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The settings of a rollout."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"broker_id": 1, "percent": 12.5}

    broker_id: Annotated[
        Id,
        Meta(description="Must be active, and allowed for the fleet if the fleet is restricted."),
    ]
    percent: Annotated[
        float,
        Meta(
            ge=0, le=100, description="The share of the fleet's devices, with at most two decimals."
        ),
    ]
    salt: (
        Annotated[
            str,
            documented(
                pattern=IDENTIFIER_PATTERN,
                description="Determines which devices the rollout reaches first. If it is left "
                "out, it stays as it is while the broker stays the same; else it is random.",
            ),
        ]
        | UnsetType
    ) = UNSET


@get(
    "/{fleet_id:str}/rollout",
    access=WithinFleets(Access.VIEWER),
    summary="Get a fleet's rollout",
    description="Its `ETag` is that of the fleet.",
    responses=NOT_MODIFIED,
    reasons=("FLEET_NOT_FOUND", "ROLLOUT_NOT_FOUND"),
)
async def get_rollout(
    request: CallerRequest, fleet_id: FleetId, if_none_match: IfNoneMatch = None
) -> Response[Rollout]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.rollouts.GetRollout, rollouts_pb2.GetRolloutRequest(fleet_id=fleet_id)
    )
    rollout = rollout_json(answer.rollout)
    return unless_known(request, if_none_match, rollout, answer.fleet_revision)


@put(
    "/{fleet_id:str}/rollout",
    access=WithinFleets(Access.OPERATOR),
    action="rollout.set",
    summary="Start, widen or narrow a fleet's rollout",
    description="Devices that the rollout reaches, and that are not pinned, get its broker when "
    "they next ask. A wider rollout reaches more devices and still reaches all devices "
    "from before.",
    dto=StrictJson[RolloutChange],
    dependencies=IF_REVISION,
    responses=BEGUN,
    reasons=("FLEET_NOT_FOUND", "BROKER_UNKNOWN", "BROKER_INACTIVE", "BROKER_NOT_ALLOWED"),
)
async def set_rollout(
    request: CallerRequest,
    fleet_id: FleetId,
    data: JSONBody[RolloutChange],
    if_revision: IfRevision,
) -> Response[Rollout]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.rollouts.SetRollout,
        rollouts_pb2.SetRolloutRequest(
            fleet_id=fleet_id,
            broker_id=data.broker_id,
            percent=data.percent,
            salt=None if data.salt is UNSET else data.salt,
            if_revision=if_revision,
        ),
    )
    shown = tagged(rollout_json(answer.rollout), answer.fleet_revision)
    shown.status_code = 201 if answer.has_begun else 200
    return shown


@delete(
    "/{fleet_id:str}/rollout",
    access=WithinFleets(Access.OPERATOR),
    action="rollout.stop",
    summary="Stop a fleet's rollout, which takes all devices back",
    dependencies=IF_REVISION,
    reasons=("FLEET_NOT_FOUND", "ROLLOUT_NOT_FOUND"),
)
async def stop_rollout(request: CallerRequest, fleet_id: FleetId, if_revision: IfRevision) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.services.rollouts.StopRollout,
        rollouts_pb2.StopRolloutRequest(fleet_id=fleet_id, if_revision=if_revision),
    )


@post(
    "/{fleet_id:str}/rollout/complete",
    access=WithinFleets(Access.OPERATOR),
    action="rollout.complete",
    summary="Make the rollout's broker the fleet's own, and end the rollout",
    status_code=200,
    dependencies=IF_REVISION,
    reasons=("FLEET_NOT_FOUND", "ROLLOUT_NOT_FOUND", "BROKER_INACTIVE", "BROKER_NOT_ALLOWED"),
)
async def complete_rollout(
    request: CallerRequest, fleet_id: FleetId, if_revision: IfRevision
) -> Response[Fleet]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.rollouts.CompleteRollout,
        rollouts_pb2.CompleteRolloutRequest(fleet_id=fleet_id, if_revision=if_revision),
    )
    return fleet_answer(answer.fleet)


ROUTES = Router(
    "/fleets",
    route_handlers=[get_rollout, set_rollout, stop_rollout, complete_rollout],
    tags=["rollouts"],
)
