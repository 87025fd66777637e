"""Lists and counts of devices: `/api/v1/devices` and `/api/v1/devices/count`."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from mooring.registry.v1 import devices_pb2, jobs_pb2

from chassis.errors import InvalidInput
from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.device_types import DeviceCount, DevicePage, count_json, device_json
from gateway.administration.fields import MAX_INT32, timestamp_in
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit

FACETS = {
    number: name.removeprefix("DEVICE_FACET_").lower()
    for name, number in devices_pb2.DeviceFacet.items()
    if number
}


def _only(description: str) -> QueryParameter:
    return QueryParameter(description=f"Only devices {description}.")


def _number(description: str) -> QueryParameter:
    return QueryParameter(ge=0, le=MAX_INT32, description=f"Only devices {description}.")


def _not(name: str) -> QueryParameter:
    return QueryParameter(description=f"No devices that `{name}` would list. May be repeated.")


def wanted(
    search: Annotated[
        str,
        QueryParameter(
            description="Only devices whose uuid begins with this, or whose name does in upper or "
            "lower case. No character has a special meaning."
        ),
    ] = "",
    fleet_id: Annotated[str, _only("of this fleet")] = "",
    device_type: Annotated[str | None, _only("of this type")] = None,
    region: Annotated[str | None, _only("of this region; empty: without a region")] = None,
    mqtt_broker_id: Annotated[
        int | None, _number("that are pinned to this broker; 0: without a pin")
    ] = None,
    pool_id: Annotated[
        int | None, _number("that have this pool themselves; 0: that have none")
    ] = None,
    told_broker_id: Annotated[
        int | None, _number("whose last answer named this broker first; 0: named none")
    ] = None,
    provisioned_by_key_id: Annotated[
        str | None,
        _only("of this provisioning key; empty: imported and not registered yet"),
    ] = None,
    uuid_prefix: Annotated[str, _only("whose uuid begins with this")] = "",
    credential_key_id: Annotated[
        int | None, _number("whose credentials were made with this server key; 0: with none")
    ] = None,
    short_api_key: Annotated[
        bool | None, _only("with short API keys (true), or without (false)")
    ] = None,
    is_active: Annotated[bool | None, _only("that are active (true), or disabled (false)")] = None,
    is_online: Annotated[
        bool | None, _only("that are connected (true), or not (false), as brokers report")
    ] = None,
    is_pinned: Annotated[bool | None, _only("with a pin (true), or without (false)")] = None,
    registered_since: Annotated[
        str | None,
        QueryParameter(
            description="Only devices that registered at this time or later: RFC 3339.",
            format="date-time",
        ),
    ] = None,
    registered_before: Annotated[
        str | None,
        QueryParameter(
            description="Only devices that registered before this time: RFC 3339.",
            format="date-time",
        ),
    ] = None,
    not_search: Annotated[list[str] | None, _not("search")] = None,
    not_fleet_id: Annotated[list[str] | None, _not("fleet_id")] = None,
    not_device_type: Annotated[list[str] | None, _not("device_type")] = None,
    not_region: Annotated[list[str] | None, _not("region")] = None,
    not_mqtt_broker_id: Annotated[list[int] | None, _not("mqtt_broker_id")] = None,
    not_pool_id: Annotated[list[int] | None, _not("pool_id")] = None,
    not_told_broker_id: Annotated[list[int] | None, _not("told_broker_id")] = None,
    not_provisioned_by_key_id: Annotated[list[str] | None, _not("provisioned_by_key_id")] = None,
    not_uuid_prefix: Annotated[list[str] | None, _not("uuid_prefix")] = None,
    not_credential_key_id: Annotated[list[int] | None, _not("credential_key_id")] = None,
) -> jobs_pb2.DeviceFilter:
    """The filter of the query parameters. Raises `InvalidInput`."""
    return jobs_pb2.DeviceFilter(
        search=search or None,
        fleet_id=fleet_id or None,
        device_type=device_type,
        region=region,
        mqtt_broker_id=mqtt_broker_id,
        pool_id=pool_id,
        told_broker_id=told_broker_id,
        provisioned_by_key_id=provisioned_by_key_id,
        uuid_prefix=uuid_prefix or None,
        credential_key_id=credential_key_id,
        short_api_key=short_api_key,
        is_active=is_active,
        is_online=is_online,
        is_pinned=is_pinned,
        registered_since=timestamp_in("registered_since", registered_since),
        registered_before=timestamp_in("registered_before", registered_before),
        not_search=not_search,
        not_fleet_id=not_fleet_id,
        not_device_type=not_device_type,
        not_region=not_region,
        not_mqtt_broker_id=_numbers("not_mqtt_broker_id", not_mqtt_broker_id),
        not_pool_id=_numbers("not_pool_id", not_pool_id),
        not_told_broker_id=_numbers("not_told_broker_id", not_told_broker_id),
        not_provisioned_by_key_id=not_provisioned_by_key_id,
        not_uuid_prefix=not_uuid_prefix,
        not_credential_key_id=_numbers("not_credential_key_id", not_credential_key_id),
    )


def _numbers(field: str, values: list[int] | None) -> list[int] | None:
    """Raises `InvalidInput` for a number that no id can have."""
    if not all(0 <= value <= MAX_INT32 for value in values or ()):
        raise InvalidInput(f"must be from 0 to {MAX_INT32}", field=field)
    return values


Wanted = NamedDependency[jobs_pb2.DeviceFilter]
WANTED = {"wanted": Provide(wanted, sync_to_thread=False)}


@get(
    "/",
    access=WithinFleets(Access.VIEWER),
    summary="List devices",
    description="In the order of their ids; with `search`, those whose uuid matches, in the order "
    "of their uuids, then those whose name matches, in the order of their names; with "
    "`registered_since` or `registered_before`, in the order in which they registered; with "
    "`uuid_prefix`, in the order of their uuids. A cursor belongs to the conditions of its page.",
    dependencies=WANTED,
)
async def list_devices(
    request: CallerRequest, wanted: Wanted, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = ""
) -> DevicePage:
    caller = request.auth
    try:
        answer = await caller.ask_registry(
            caller.services.devices.ListDevices,
            devices_pb2.ListDevicesRequest(page_size=limit, cursor=cursor, filter=wanted),
        )
    except InvalidInput as error:
        error.field = error.field.removeprefix("filter.")
        raise
    return DevicePage(
        [device_json(device) for device in answer.devices], answer.next_cursor or None
    )


@get(
    "/count",
    access=WithinFleets(Access.VIEWER),
    summary="Count devices",
    description="Takes the same conditions as the list. With `facets`, also how many devices have "
    "which values.",
    dependencies=WANTED,
)
async def count_devices(
    request: CallerRequest,
    wanted: Wanted,
    facets: Annotated[
        list[str] | None,
        QueryParameter(description=f"One of {', '.join(FACETS.values())}. May be repeated."),
    ] = None,
) -> DeviceCount:
    caller = request.auth
    numbers = {name: number for number, name in FACETS.items()}
    if not numbers.keys() >= set(facets or ()):
        raise InvalidInput(f"must be of {', '.join(numbers)}", field="facets")
    try:
        answer = await caller.ask_registry(
            caller.services.devices.CountDevices,
            devices_pb2.CountDevicesRequest(
                filter=wanted, facets=[numbers[name] for name in facets or ()]
            ),
        )
    except InvalidInput as error:
        error.field = error.field.removeprefix("filter.")
        raise
    return count_json(answer)
