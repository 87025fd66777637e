"""Brokers: `/api/v1/brokers`."""

from typing import Annotated

from litestar import Response, Router, delete, get, patch, post
from litestar.params import FromQuery, JSONBody, QueryParameter
from mooring.broker.v1 import brokers_pb2

from chassis.errors import InvalidInput
from chassis.trust import Access, WithinFleets
from gateway.administration.broker_types import (
    Broker,
    BrokerChange,
    BrokerPage,
    NewBroker,
    Protocol,
    Text64,
    broker_json,
    fields_of,
)
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import MAX_INT32, Id, PathId, mask, named
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, searched
from gateway.administration.preconditions import (
    IF_REVISION,
    NOT_MODIFIED,
    IfNoneMatch,
    IfRevision,
    tagged,
    unless_known,
)
from gateway.bodies import StrictJson

DryRun = Annotated[
    bool,
    QueryParameter(
        description="Checks the request and gives the answer that it would have, without changing "
        "anything. A broker that would be created has the id 0."
    ),
]


def _labels(pairs: list[str]) -> dict[str, str]:
    """The labels of the query parameters. Raises `InvalidInput`."""
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or labels.setdefault(key, value) != value:
            raise InvalidInput("is key=value, once for each key", field="label")
    return labels


def _answer(broker: brokers_pb2.Broker, *, dry_run: bool) -> Response[Broker]:
    """The broker after a change. After a dry run no such revision exists, so it has no `ETag`."""
    shown = broker_json(broker)
    return Response(shown) if dry_run else tagged(shown, broker.revision)


@post(
    "/",
    access=Access.OPERATOR,
    action="broker.create",
    summary="Add a broker",
    dto=StrictJson[NewBroker],
    reasons=("BROKER_NAME_TAKEN", "CERTIFICATE_UNKNOWN", "BROKER_UNKNOWN"),
)
async def create_broker(
    request: CallerRequest, data: JSONBody[NewBroker], dry_run: DryRun = False
) -> Response[Broker]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.brokers.CreateBroker,
        brokers_pb2.CreateBrokerRequest(fields=fields_of(named(data)), validate_only=dry_run),
    )
    return _answer(answer.broker, dry_run=dry_run)


@get(
    "/",
    access=WithinFleets(Access.VIEWER),
    summary="List brokers",
)
async def list_brokers(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    is_active: FromQuery[bool | None] = None,
    is_default: FromQuery[bool | None] = None,
    region: Annotated[
        Text64 | None, QueryParameter(description="An empty value: brokers without a region.")
    ] = None,
    protocol: FromQuery[Protocol | None] = None,
    label: Annotated[
        list[str] | None,
        QueryParameter(
            description="key=value. May be repeated: a broker must have all of the labels."
        ),
    ] = None,
    name: Annotated[
        str, QueryParameter(max_length=255, description="A text that the name contains.")
    ] = "",
    certificate_id: Annotated[
        int | None,
        QueryParameter(ge=1, le=MAX_INT32, description="Only brokers that use this certificate."),
    ] = None,
    search: Annotated[
        str, searched("whose name, host or description contains this, or whose id it is")
    ] = "",
    id: Annotated[  # noqa: A002 - the name of the parameter
        list[Id] | None,
        QueryParameter(description="Only these brokers, at most 500. May be repeated."),
    ] = None,
) -> BrokerPage:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.brokers.ListBrokers,
        brokers_pb2.ListBrokersRequest(
            page_size=limit,
            cursor=cursor,
            is_active=is_active,
            is_default=is_default,
            region=region,
            protocol=protocol,
            labels=_labels(label or []),
            name=name,
            certificate_id=certificate_id,
            search=search,
            ids=id or (),
        ),
    )
    return BrokerPage(
        [broker_json(broker) for broker in answer.brokers], answer.next_cursor or None
    )


@get(
    "/{broker_id:int}",
    access=WithinFleets(Access.VIEWER),
    summary="Get a broker",
    responses=NOT_MODIFIED,
    reasons=("BROKER_NOT_FOUND",),
)
async def get_broker(
    request: CallerRequest, broker_id: PathId, if_none_match: IfNoneMatch = None
) -> Response[Broker]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.brokers.GetBroker, brokers_pb2.GetBrokerRequest(id=broker_id)
    )
    broker = broker_json(answer.broker)
    return unless_known(request, if_none_match, broker, broker.revision)


@patch(
    "/{broker_id:int}",
    access=Access.OPERATOR,
    action="broker.update",
    summary="Change a broker",
    dto=StrictJson[BrokerChange],
    dependencies=IF_REVISION,
    reasons=(
        "BROKER_NOT_FOUND",
        "BROKER_NAME_TAKEN",
        "BROKER_IS_DEFAULT",
        "CERTIFICATE_UNKNOWN",
        "BROKER_UNKNOWN",
    ),
)
async def update_broker(
    request: CallerRequest,
    broker_id: PathId,
    data: JSONBody[BrokerChange],
    if_revision: IfRevision,
    dry_run: DryRun = False,
) -> Response[Broker]:
    caller = request.auth
    values = named(data)
    answer = await caller.ask_broker_service(
        caller.services.brokers.UpdateBroker,
        brokers_pb2.UpdateBrokerRequest(
            id=broker_id,
            fields=fields_of(values),
            update_mask=mask(values),
            if_revision=if_revision,
            validate_only=dry_run,
        ),
    )
    return _answer(answer.broker, dry_run=dry_run)


@delete(
    "/{broker_id:int}",
    access=Access.OPERATOR,
    action="broker.delete",
    summary="Delete a broker",
    description="Refused with BROKER_IN_USE while a device, fleet, key, region, pool or other "
    "broker refers to it; `usage` then counts them. Its revisions stay.",
    dependencies=IF_REVISION,
    reasons=("BROKER_NOT_FOUND", "BROKER_IN_USE", "BROKER_IS_DEFAULT"),
)
async def delete_broker(request: CallerRequest, broker_id: PathId, if_revision: IfRevision) -> None:
    caller = request.auth
    await caller.ask_broker_service(
        caller.services.brokers.DeleteBroker,
        brokers_pb2.DeleteBrokerRequest(id=broker_id, if_revision=if_revision),
    )


@post(
    "/{broker_id:int}/default",
    access=Access.OPERATOR,
    action="broker.set_default",
    summary="Make a broker the default instead of the present one",
    status_code=200,
    dependencies=IF_REVISION,
    reasons=("BROKER_NOT_FOUND", "BROKER_INACTIVE"),
)
async def set_default_broker(
    request: CallerRequest, broker_id: PathId, if_revision: IfRevision
) -> Response[Broker]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.brokers.SetDefaultBroker,
        brokers_pb2.SetDefaultBrokerRequest(id=broker_id, if_revision=if_revision),
    )
    return tagged(broker_json(answer.broker), answer.broker.revision)


ROUTES = Router(
    "/brokers",
    route_handlers=[
        create_broker,
        list_brokers,
        get_broker,
        update_broker,
        delete_broker,
        set_default_broker,
    ],
    tags=["brokers"],
)
