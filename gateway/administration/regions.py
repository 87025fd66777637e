"""Regions of devices and brokers: `/api/v1/regions`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import Response, Router, delete, get, patch, post
from litestar.params import JSONBody, PathParameter
from mooring.broker.v1 import regions_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import Id, mask, moment_of, named, optional, present
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page, searched
from gateway.administration.preconditions import (
    IF_REVISION,
    NOT_MODIFIED,
    IfNoneMatch,
    IfRevision,
    tagged,
    unless_known,
)
from gateway.bodies import StrictJson
from gateway.documentation import documented
from gateway.examples import MOMENT

RegionId = Annotated[str, PathParameter(description="The id that devices and brokers name.")]
ID_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


class RegionChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The fields to change; a field that is left out keeps its value, null clears it. A region
    has both coordinates or none, and names a broker or a pool, not both.
    """

    EXAMPLE: ClassVar[dict[str, Any]] = {"name": "Central Europe"}

    name: Annotated[str, documented(maxLength=200)] | UnsetType | None = UNSET
    latitude: (
        Annotated[float, Meta(ge=-90, le=90, description="In degrees.")] | UnsetType | None
    ) = UNSET
    longitude: (
        Annotated[float, Meta(ge=-180, le=180, description="In degrees.")] | UnsetType | None
    ) = UNSET
    mqtt_broker_id: (
        Annotated[Id, Meta(description="The broker of its devices that nothing else decides.")]
        | UnsetType
        | None
    ) = UNSET
    pool_id: (
        Annotated[Id, Meta(description="The pool of its devices, instead of a broker.")]
        | UnsetType
        | None
    ) = UNSET


class NewRegion(RegionChange, kw_only=True, frozen=True):
    """A new region."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": "eu-central",
        "name": "Central Europe",
        "latitude": 50.1,
        "longitude": 8.7,
    }

    id: Annotated[str, documented(pattern=ID_PATTERN)]


class Region(Struct, kw_only=True, frozen=True):
    """A region."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        **NewRegion.EXAMPLE,
        "mqtt_broker_id": 1,
        "pool_id": None,
        "revision": 1,
        "created_at": MOMENT,
    }

    id: str
    name: str
    latitude: float | None
    longitude: float | None
    mqtt_broker_id: int | None
    pool_id: int | None
    revision: int
    created_at: datetime | None


class RegionPage(Page[Region], frozen=True):
    """Regions, in the order of their ids."""


def _json(region: regions_pb2.Region) -> Region:
    fields = region.fields
    return Region(
        id=region.id,
        name=fields.name,
        latitude=optional(fields, "latitude"),
        longitude=optional(fields, "longitude"),
        mqtt_broker_id=optional(fields, "mqtt_broker_id"),
        pool_id=optional(fields, "pool_id"),
        revision=region.revision,
        created_at=moment_of(region, "created_at"),
    )


def _answer(region: regions_pb2.Region) -> Response[Region]:
    return tagged(_json(region), region.revision)


@post(
    "/",
    access=Access.OPERATOR,
    action="region.create",
    summary="Create a region",
    dto=StrictJson[NewRegion],
    reasons=("REGION_ID_TAKEN", "BROKER_UNKNOWN", "POOL_UNKNOWN"),
)
async def create_region(request: CallerRequest, data: JSONBody[NewRegion]) -> Response[Region]:
    caller = request.auth
    values = present(named(data))
    answer = await caller.ask_broker_service(
        caller.services.regions.CreateRegion,
        regions_pb2.CreateRegionRequest(
            id=values.pop("id"), fields=regions_pb2.RegionFields(**values)
        ),
    )
    return _answer(answer.region)


@get(
    "/",
    access=Access.VIEWER,
    summary="List regions",
)
async def list_regions(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    search: Annotated[str, searched("whose id or name contains this")] = "",
) -> RegionPage:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.regions.ListRegions,
        regions_pb2.ListRegionsRequest(page_size=limit, cursor=cursor, search=search),
    )
    return RegionPage([_json(region) for region in answer.regions], answer.next_cursor or None)


@get(
    "/{region_id:str}",
    access=Access.VIEWER,
    summary="Get a region",
    responses=NOT_MODIFIED,
    reasons=("REGION_NOT_FOUND",),
)
async def get_region(
    request: CallerRequest, region_id: RegionId, if_none_match: IfNoneMatch = None
) -> Response[Region]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.regions.GetRegion, regions_pb2.GetRegionRequest(id=region_id)
    )
    region = _json(answer.region)
    return unless_known(request, if_none_match, region, region.revision)


@patch(
    "/{region_id:str}",
    access=Access.OPERATOR,
    action="region.update",
    summary="Change a region",
    dto=StrictJson[RegionChange],
    dependencies=IF_REVISION,
    reasons=("REGION_NOT_FOUND", "BROKER_UNKNOWN", "POOL_UNKNOWN"),
)
async def update_region(
    request: CallerRequest,
    region_id: RegionId,
    data: JSONBody[RegionChange],
    if_revision: IfRevision,
) -> Response[Region]:
    caller = request.auth
    values = named(data)
    answer = await caller.ask_broker_service(
        caller.services.regions.UpdateRegion,
        regions_pb2.UpdateRegionRequest(
            id=region_id,
            fields=regions_pb2.RegionFields(**present(values)),
            update_mask=mask(values),
            if_revision=if_revision,
        ),
    )
    return _answer(answer.region)


@delete(
    "/{region_id:str}",
    access=Access.OPERATOR,
    action="region.delete",
    summary="Delete a region",
    description="Devices and brokers keep its id as their region, which then decides nothing.",
    dependencies=IF_REVISION,
    reasons=("REGION_NOT_FOUND",),
)
async def delete_region(
    request: CallerRequest, region_id: RegionId, if_revision: IfRevision
) -> None:
    caller = request.auth
    await caller.ask_broker_service(
        caller.services.regions.DeleteRegion,
        regions_pb2.DeleteRegionRequest(id=region_id, if_revision=if_revision),
    )


ROUTES = Router(
    "/regions",
    route_handlers=[create_region, list_regions, get_region, update_region, delete_region],
    tags=["regions"],
)
