"""What refers to a broker, and moving it to another: below `/api/v1/brokers/{id}`."""

import asyncio
from typing import Annotated, Any, ClassVar

from litestar import Router, get, post
from litestar.params import JSONBody
from mooring.broker.v1 import references_pb2
from mooring.registry.v1 import broker_users_pb2
from msgspec import Meta, Struct

from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import Id, PathId
from gateway.bodies import StrictJson


class BrokerUsage(Struct, kw_only=True, frozen=True):
    """How many objects of each kind refer to a broker."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "devices": 12_000,
        "fleets": 1,
        "keys": 0,
        "allowances": 0,
        "expected_devices": 0,
        "rollouts": 0,
        "regions": 0,
        "pools": 1,
        "backups": 0,
    }

    devices: Annotated[int, Meta(description="Devices that are pinned to it.")]
    fleets: Annotated[int, Meta(description="Fleets whose broker it is.")]
    keys: Annotated[int, Meta(description="Provisioning keys that pin new devices to it.")]
    allowances: Annotated[int, Meta(description="Restricted fleets that may use it.")]
    expected_devices: Annotated[
        int, Meta(description="Expected devices that will be pinned to it.")
    ]
    rollouts: Annotated[int, Meta(description="Fleets with a rollout to it.")]
    regions: Annotated[int, Meta(description="Regions whose broker it is.")]
    pools: Annotated[int, Meta(description="Pools of which it is a member.")]
    backups: Annotated[int, Meta(description="Brokers whose backup it is.")]


class Move(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The options of a move."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"to_broker_id": 2, "move_allowances": True}

    to_broker_id: Annotated[Id, Meta(description="Must be active.")]
    move_allowances: Annotated[
        bool,
        Meta(
            description="Allows restricted fleets the new broker instead of the old one. "
            "Without it, a move is refused with BROKER_NOT_ALLOWED if devices of a restricted "
            "fleet would have no broker."
        ),
    ] = False


class Moved(Struct, kw_only=True, frozen=True):
    """What was moved, and what still refers to the old broker: repeat the request until all counts
    in `left` are 0.
    """

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "moved": BrokerUsage.EXAMPLE,
        "left": dict.fromkeys(BrokerUsage.EXAMPLE, 0),
    }

    moved: BrokerUsage
    left: BrokerUsage


def _json(
    usage: broker_users_pb2.BrokerUsage, references: references_pb2.BrokerReferences
) -> BrokerUsage:
    return BrokerUsage(
        devices=usage.devices,
        fleets=usage.fleets,
        keys=usage.keys,
        allowances=usage.allowances,
        expected_devices=usage.expected_devices,
        rollouts=usage.rollouts,
        regions=references.regions,
        pools=references.pools,
        backups=references.backups,
    )


@get(
    "/{broker_id:int}/usage",
    access=Access.VIEWER,
    summary="Count what refers to a broker",
    reasons=("BROKER_NOT_FOUND",),
)
async def get_broker_usage(request: CallerRequest, broker_id: PathId) -> BrokerUsage:
    caller = request.auth
    users, referring = await asyncio.gather(
        caller.ask_registry(
            caller.services.broker_users.GetBrokerUsage,
            broker_users_pb2.GetBrokerUsageRequest(broker_id=broker_id),
        ),
        caller.ask_broker_service(
            caller.services.broker_references.GetBrokerReferences,
            references_pb2.GetBrokerReferencesRequest(broker_id=broker_id),
        ),
    )
    return _json(users.usage, referring.references)


@post(
    "/{broker_id:int}/move",
    access=Access.OPERATOR,
    action="broker_user.move",
    summary="Move everything that refers to a broker to another",
    description="Moves pins of devices, rules and rollouts of fleets, and default brokers of "
    "keys; then regions, memberships of pools, and backups. Many devices take more than one "
    "request: each request moves as many as it has time for.",
    status_code=200,
    dto=StrictJson[Move],
    reasons=("BROKER_NOT_FOUND", "BROKER_UNKNOWN", "BROKER_INACTIVE", "BROKER_NOT_ALLOWED"),
)
async def move_broker_users(
    request: CallerRequest, broker_id: PathId, data: JSONBody[Move]
) -> Moved:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.broker_users.MoveBrokerUsers,
        broker_users_pb2.MoveBrokerUsersRequest(
            from_broker_id=broker_id,
            to_broker_id=data.to_broker_id,
            move_allowances=data.move_allowances,
        ),
    )
    referring = await caller.ask_broker_service(
        caller.services.broker_references.MoveBrokerReferences,
        references_pb2.MoveBrokerReferencesRequest(
            from_broker_id=broker_id, to_broker_id=data.to_broker_id
        ),
    )
    # That is one transaction, which leaves nothing.
    return Moved(
        moved=_json(answer.moved, referring.moved),
        left=_json(answer.left, references_pb2.BrokerReferences()),
    )


ROUTES = Router("/brokers", route_handlers=[get_broker_usage, move_broker_users], tags=["brokers"])
