"""gRPC: regions."""

import re
from collections.abc import Mapping
from typing import Any

from mooring.broker.v1 import regions_pb2 as pb
from mooring.broker.v1 import regions_pb2_grpc

from broker_service.errors import RegionNotFound
from broker_service.refreshing import Refresh
from broker_service.regions.store import RegionStore
from chassis import pages
from chassis.errors import InvalidInput
from chassis.searching import start_of
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access
from chassis.validation import IDENTIFIER, check_identifier, check_range, check_text

# The ranges of the fields that are numbers.
RANGES = {
    "latitude": (-90, 90),
    "longitude": (-180, 180),
    "mqtt_broker_id": (1, 2**31 - 1),
    "pool_id": (1, 2**31 - 1),
}
FIRST = re.compile(r"[A-Za-z0-9]")


class RegionServicer(regions_pb2_grpc.RegionServiceServicer):
    """A change takes effect in this replica before the caller gets its answer."""

    def __init__(self, store: RegionStore, refresh: Refresh) -> None:
        """`refresh` makes a change that was committed take effect in this process."""
        self._store = store
        self._refresh = refresh

    @allows(Access.OPERATOR)
    async def CreateRegion(
        self, request: pb.CreateRegionRequest, context: Context
    ) -> pb.CreateRegionResponse:
        """Raises `InvalidInput`, `RegionIdTaken`, `BrokerUnknown`, `PoolUnknown`."""
        check_identifier("id", request.id)
        if not FIRST.match(request.id):
            raise InvalidInput("must begin with a letter or digit", field="id")
        given = [field.name for field, _ in request.fields.ListFields()]
        columns = _columns(request.fields, given)
        _check(columns)
        row = await self._store.create(request.id, columns)
        await self._refresh()
        return pb.CreateRegionResponse(region=_proto_of(row))

    @allows(Access.VIEWER)
    async def GetRegion(
        self, request: pb.GetRegionRequest, context: Context
    ) -> pb.GetRegionResponse:
        """Raises `RegionNotFound`."""
        _require_possible(request.id)
        return pb.GetRegionResponse(region=_proto_of(await self._store.region(request.id)))

    @allows(Access.VIEWER)
    async def ListRegions(
        self, request: pb.ListRegionsRequest, context: Context
    ) -> pb.ListRegionsResponse:
        """Lists regions in the order of their ids. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        start = start_of(request.search, request.cursor, str)
        rows = await self._store.regions_from(start, size + 1)
        page, next_cursor = pages.cut(
            rows, size, lambda row: start.place_of(row["rank"], row["id"])
        )
        return pb.ListRegionsResponse(regions=map(_proto_of, page), next_cursor=next_cursor)

    @allows(Access.OPERATOR)
    async def UpdateRegion(
        self, request: pb.UpdateRegionRequest, context: Context
    ) -> pb.UpdateRegionResponse:
        """Raises `InvalidInput`, `RegionNotFound`, `BrokerUnknown`, `PoolUnknown`, `LostRace`."""
        _require_possible(request.id)
        columns = _columns(request.fields, request.update_mask.paths)

        def decide(before: Mapping[Any, Any]) -> Mapping[str, Any]:
            _check({**before, **columns})
            return {name: value for name, value in columns.items() if value != before[name]}

        row = await self._store.update(request.id, decide, request.if_revision)
        await self._refresh()
        return pb.UpdateRegionResponse(region=_proto_of(row))

    @allows(Access.OPERATOR)
    async def DeleteRegion(
        self, request: pb.DeleteRegionRequest, context: Context
    ) -> pb.DeleteRegionResponse:
        """Raises `InvalidInput`, `RegionNotFound`, `LostRace`."""
        _require_possible(request.id)
        await self._store.delete(request.id, request.if_revision)
        await self._refresh()
        return pb.DeleteRegionResponse()


def _require_possible(region_id: str) -> None:
    """Raises `RegionNotFound` for a text that cannot be the id of a region."""
    if not IDENTIFIER.fullmatch(region_id):
        raise RegionNotFound("there is no such region")


def _columns(given: pb.RegionFields, names: Any) -> dict[str, Any]:
    """The columns of the named fields; a field that is named and not set is cleared. Raises
    `InvalidInput`.
    """
    columns: dict[str, Any] = {}
    for name in names:
        if name == "name":
            check_text("name", given.name, longest=200)
            columns["name"] = given.name
        elif name not in RANGES:
            raise InvalidInput("names an unknown field of a region", field="update_mask")
        elif given.HasField(name):
            columns[name] = getattr(given, name)
            check_range(name, columns[name], *RANGES[name])
        else:
            columns[name] = None
    return columns


def _check(columns: Mapping[Any, Any]) -> None:
    """Raises `InvalidInput` if a region would have one coordinate, or name both a broker and a
    pool.
    """
    latitude, longitude = columns.get("latitude"), columns.get("longitude")
    if (latitude is None) != (longitude is None):
        field = "latitude" if latitude is None else "longitude"
        raise InvalidInput("is needed beside the other coordinate", field=field)
    if columns.get("mqtt_broker_id") is not None and columns.get("pool_id") is not None:
        raise InvalidInput("cannot be combined with mqtt_broker_id", field="pool_id")


def _proto_of(row: Mapping[Any, Any]) -> pb.Region:
    return pb.Region(
        id=row["id"],
        fields=pb.RegionFields(
            name=row["name"],
            latitude=row["latitude"],
            longitude=row["longitude"],
            mqtt_broker_id=row["mqtt_broker_id"],
            pool_id=row["pool_id"],
        ),
        revision=row["revision"],
        created_at=timestamp_of(row["created_at"]),
    )
