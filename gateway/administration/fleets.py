"""Fleets, and the brokers of their devices: `/api/v1/fleets`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import Response, Router, delete, get, patch, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from mooring.registry.v1 import fleets_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import Id, mask, moment_of, named, optional, present
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page, searched
from gateway.administration.preconditions import IF_REVISION, IfRevision, tagged
from gateway.bodies import StrictJson
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.examples import MOMENT

FleetId = Annotated[str, PathParameter(description="The fleet's name in paths.")]


class FleetChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The fields to change; a field that is left out keeps its value, null clears it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"name": "Demonstration", "allowed_broker_ids": None}

    name: Annotated[str, documented(minLength=1, maxLength=255)] | UnsetType = UNSET
    mqtt_broker_id: (
        Annotated[Id, Meta(description="The broker of its devices that have no pin.")]
        | UnsetType
        | None
    ) = UNSET
    pool_id: (
        Annotated[
            Id,
            Meta(
                description="The pool of its devices that have no pin, instead of "
                "`mqtt_broker_id`: to replace one, set it to null in the same request."
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    allowed_broker_ids: (
        Annotated[
            list[Id],
            Meta(description="Only these brokers serve its devices; null: not restricted."),
        ]
        | UnsetType
        | None
    ) = UNSET
    is_active: (
        Annotated[bool, Meta(description="False: its devices cannot register or connect.")]
        | UnsetType
    ) = UNSET
    uuid_prefix: (
        Annotated[
            str,
            documented(
                pattern=IDENTIFIER_PATTERN,
                description="Uuids of new devices must begin with this prefix, and it is "
                "reserved for this fleet. Registered devices stay. Null: any uuid that is not "
                "reserved for another fleet.",
            ),
        ]
        | UnsetType
        | None
    ) = UNSET


class NewFleet(FleetChange, kw_only=True, frozen=True):
    """A new fleet."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"id": "north", "name": "North", "mqtt_broker_id": 1}

    id: Annotated[str, documented(pattern=IDENTIFIER_PATTERN)]


class Rollout(Struct, kw_only=True, frozen=True):
    """A rollout that takes a fleet to another broker in waves."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "broker_id": 1,
        "percent": 12.5,
        "salt": "5f2c9a0e7d41b836",
        "began_at": MOMENT,
    }

    broker_id: Annotated[
        int, Meta(description="The broker of the devices that the rollout has reached.")
    ]
    percent: Annotated[
        float, Meta(description="The share of the fleet's devices that the rollout reaches.")
    ]
    salt: Annotated[str, Meta(description="Determines which devices the rollout reaches first.")]
    began_at: Annotated[
        datetime | None, Meta(description="When the rollout got this broker and this salt.")
    ]


class Fleet(Struct, kw_only=True, frozen=True):
    """A fleet."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": "demo",
        "name": "Demo",
        "mqtt_broker_id": None,
        "pool_id": None,
        "allowed_broker_ids": None,
        "is_active": True,
        "uuid_prefix": "sensor-",
        "devices_outside_prefix": 0,
        "rollout": Rollout.EXAMPLE,
        "revision": 1,
        "created_at": MOMENT,
        "updated_at": MOMENT,
    }

    id: str
    name: str
    mqtt_broker_id: int | None
    pool_id: int | None
    allowed_broker_ids: list[int] | None
    is_active: bool
    uuid_prefix: str | None
    devices_outside_prefix: Annotated[
        int,
        Meta(
            description="How many of its devices have uuids without the prefix; they stay. "
            "10,000 means 10,000 or more. In lists always 0."
        ),
    ]
    rollout: Annotated[Rollout, Meta(description="Null: no rollout is in progress.")] | None
    revision: Annotated[
        int, Meta(description="Goes up with each change of the fleet or its rollout.")
    ]
    created_at: datetime | None
    updated_at: datetime | None


class FleetPage(Page[Fleet], frozen=True):
    """Fleets, in the order of their ids."""


def rollout_json(rollout: fleets_pb2.Rollout) -> Rollout:
    """The registry's rollout as JSON."""
    return Rollout(
        broker_id=rollout.broker_id,
        percent=rollout.percent,
        salt=rollout.salt,
        began_at=moment_of(rollout, "began_at"),
    )


def fleet_json(fleet: fleets_pb2.Fleet) -> Fleet:
    """The registry's fleet as JSON."""
    fields = fleet.fields
    return Fleet(
        id=fleet.id,
        name=fields.name,
        mqtt_broker_id=optional(fields, "mqtt_broker_id"),
        pool_id=optional(fields, "pool_id"),
        allowed_broker_ids=list(fields.allowed_brokers.broker_ids)
        if fields.HasField("allowed_brokers")
        else None,
        is_active=fields.is_active,
        uuid_prefix=optional(fields, "uuid_prefix"),
        devices_outside_prefix=fleet.devices_outside_prefix,
        rollout=rollout_json(fleet.rollout) if fleet.HasField("rollout") else None,
        revision=fleet.revision,
        created_at=moment_of(fleet, "created_at"),
        updated_at=moment_of(fleet, "updated_at"),
    )


def fleet_answer(fleet: fleets_pb2.Fleet) -> Response[Fleet]:
    """The registry's fleet as JSON, with its `ETag`."""
    return tagged(fleet_json(fleet), fleet.revision)


def _values(change: FleetChange) -> dict[str, Any]:
    """The given fields as in the proto, where a list that may be absent is a message."""
    values = named(change)
    values.pop("id", None)
    if "allowed_broker_ids" in values:
        ids = values.pop("allowed_broker_ids")
        values["allowed_brokers"] = (
            None if ids is None else fleets_pb2.AllowedBrokers(broker_ids=ids)
        )
    return values


@post(
    "/",
    access=Access.OPERATOR,
    action="fleet.create",
    summary="Create a fleet",
    dto=StrictJson[NewFleet],
    reasons=(
        "FLEET_ID_TAKEN",
        "UUID_PREFIX_TAKEN",
        "BROKER_UNKNOWN",
        "BROKER_NOT_ALLOWED",
        "POOL_UNKNOWN",
    ),
)
async def create_fleet(request: CallerRequest, data: JSONBody[NewFleet]) -> Response[Fleet]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.fleets.CreateFleet,
        fleets_pb2.CreateFleetRequest(
            id=data.id, fields=fleets_pb2.FleetFields(**present(_values(data)))
        ),
    )
    return fleet_answer(answer.fleet)


@get(
    "/",
    access=WithinFleets(Access.VIEWER),
    summary="List fleets",
)
async def list_fleets(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    search: Annotated[str, searched("whose id or name contains this")] = "",
    has_rollout: Annotated[
        bool | None,
        QueryParameter(
            description="true: only fleets with a rollout in progress; false: only the others."
        ),
    ] = None,
) -> FleetPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.fleets.ListFleets,
        fleets_pb2.ListFleetsRequest(
            page_size=limit, cursor=cursor, search=search, has_rollout=has_rollout
        ),
    )
    return FleetPage([fleet_json(fleet) for fleet in answer.fleets], answer.next_cursor or None)


@get(
    "/{fleet_id:str}",
    access=WithinFleets(Access.VIEWER),
    summary="Get a fleet",
    reasons=("FLEET_NOT_FOUND",),
)
async def get_fleet(request: CallerRequest, fleet_id: FleetId) -> Response[Fleet]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.fleets.GetFleet, fleets_pb2.GetFleetRequest(id=fleet_id)
    )
    return fleet_answer(answer.fleet)


@patch(
    "/{fleet_id:str}",
    access=WithinFleets(Access.OPERATOR),
    action="fleet.update",
    summary="Change a fleet",
    dto=StrictJson[FleetChange],
    dependencies=IF_REVISION,
    reasons=(
        "FLEET_NOT_FOUND",
        "UUID_PREFIX_TAKEN",
        "BROKER_UNKNOWN",
        "BROKER_NOT_ALLOWED",
        "POOL_UNKNOWN",
    ),
)
async def update_fleet(
    request: CallerRequest,
    fleet_id: FleetId,
    data: JSONBody[FleetChange],
    if_revision: IfRevision,
) -> Response[Fleet]:
    caller = request.auth
    values = _values(data)
    answer = await caller.ask_registry(
        caller.services.fleets.UpdateFleet,
        fleets_pb2.UpdateFleetRequest(
            id=fleet_id,
            fields=fleets_pb2.FleetFields(**present(values)),
            update_mask=mask(values),
            if_revision=if_revision,
        ),
    )
    return fleet_answer(answer.fleet)


@delete(
    "/{fleet_id:str}",
    access=Access.OPERATOR,
    action="fleet.delete",
    summary="Delete a fleet",
    description="Refused while the fleet has devices, expected devices or provisioning keys; "
    "`usage` then counts them. Tokens that are restricted to this fleet alone are "
    "revoked.",
    dependencies=IF_REVISION,
    reasons=("FLEET_NOT_FOUND", "FLEET_IN_USE"),
)
async def delete_fleet(
    request: CallerRequest,
    fleet_id: FleetId,
    if_revision: IfRevision,
    with_devices: Annotated[
        bool,
        QueryParameter(
            description="Disables the fleet, and deletes its devices, expected devices and "
            "provisioning keys. Many devices take more than one request: each deletes as many as "
            "it has time for, and answers FLEET_IN_USE while some are left. The first one makes a "
            "revision of the fleet."
        ),
    ] = False,
) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.services.fleets.DeleteFleet,
        fleets_pb2.DeleteFleetRequest(
            id=fleet_id, with_devices=with_devices, if_revision=if_revision
        ),
    )


ROUTES = Router(
    "/fleets",
    route_handlers=[create_fleet, list_fleets, get_fleet, update_fleet, delete_fleet],
    tags=["fleets"],
)
