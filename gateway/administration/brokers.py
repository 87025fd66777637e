"""Brokers: `/api/v1/brokers`. The fields are the columns of `mqtt_broker_config`."""

from datetime import datetime
from typing import Annotated, Literal

from litestar import Router, delete, get, patch, post
from litestar.params import JSONBody
from mooring.broker.v1 import brokers_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import (
    MAX_INT32,
    PathId,
    mask,
    moment_of,
    named,
    optional,
    present,
)
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page
from gateway.bodies import StrictJson
from gateway.documentation import documented
from gateway.problems import errors

Protocol = Literal["mqtt", "mqtts", "ws", "wss"]
Milliseconds = Annotated[int, Meta(ge=0, le=MAX_INT32)]
Port = Annotated[int, Meta(ge=1, le=65535)]


Name = Annotated[str, documented(minLength=1, maxLength=255)]
Host = Annotated[str, documented(minLength=1, maxLength=253, description="A name or an address.")]
Text64 = Annotated[str, documented(maxLength=64)]


class _Settings(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What may be left away; null goes back to the default, or to none."""

    description: Annotated[str, documented(maxLength=2000)] | UnsetType | None = UNSET
    protocol: Protocol | UnsetType | None = UNSET
    path: Annotated[str, Meta(description="For ws and wss.")] | UnsetType | None = UNSET
    use_tls: (
        Annotated[bool, Meta(description="Follows the protocol; need not be sent.")]
        | UnsetType
        | None
    ) = UNSET
    verify_certificate: bool | UnsetType | None = UNSET
    client_id_prefix: Text64 | UnsetType | None = UNSET
    keep_alive: (
        Annotated[int, Meta(ge=0, le=65535, description="Seconds; 0 turns it off.")]
        | UnsetType
        | None
    ) = UNSET
    clean_session: bool | UnsetType | None = UNSET
    reconnect_period: Milliseconds | UnsetType | None = UNSET
    connect_timeout: Milliseconds | UnsetType | None = UNSET
    ca_cert: (
        Annotated[str, Meta(description="PEM of the CA certificates the broker's chains to.")]
        | UnsetType
        | None
    ) = UNSET
    is_active: bool | UnsetType | None = UNSET
    region: Text64 | UnsetType | None = UNSET


class NewBroker(_Settings, kw_only=True, frozen=True):
    """A broker to be known from now on."""

    name: Name
    host: Host
    port: Port


class BrokerChange(_Settings, kw_only=True, frozen=True):
    """What is to change; a field that is not named is left alone."""

    name: Name | UnsetType = UNSET
    host: Host | UnsetType = UNSET
    port: Port | UnsetType = UNSET


class Broker(Struct, kw_only=True, frozen=True):
    """A broker as it is. Its secrets never leave the broker service."""

    id: int
    name: str
    description: Annotated[str, documented(maxLength=2000)] | None
    protocol: str
    host: str
    port: int
    path: str | None
    use_tls: bool
    verify_certificate: bool
    client_id_prefix: str | None
    keep_alive: int
    clean_session: bool
    reconnect_period: int
    connect_timeout: int
    ca_cert: str | None
    is_active: bool
    region: str | None
    is_default: bool
    ca_certificate_id: int | None
    client_certificate_id: int | None
    revision: int
    created_at: datetime | None
    updated_at: datetime | None


class BrokerPage(Page[Broker], frozen=True):
    """Brokers, in the order of their ids."""


COLUMNS = tuple(brokers_pb2.BrokerFields.DESCRIPTOR.fields_by_name)


def _json(broker: brokers_pb2.Broker) -> Broker:
    return Broker(
        id=broker.id,
        is_default=broker.is_default,
        ca_certificate_id=optional(broker, "ca_certificate_id"),
        client_certificate_id=optional(broker, "client_certificate_id"),
        revision=broker.revision,
        created_at=moment_of(broker, "created_at"),
        updated_at=moment_of(broker, "updated_at"),
        **{column: optional(broker.fields, column) for column in COLUMNS},
    )


@post(
    "/",
    access=Access.OPERATOR,
    summary="Make a broker known",
    dto=StrictJson[NewBroker],
    responses=errors(401, 403, 412, 413, 415, 422, "BROKER_NAME_TAKEN"),
)
async def create_broker(request: CallerRequest, data: JSONBody[NewBroker]) -> Broker:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.neighbours.brokers.CreateBroker,
        brokers_pb2.CreateBrokerRequest(fields=brokers_pb2.BrokerFields(**present(named(data)))),
    )
    return _json(answer.broker)


@get("/", access=Access.VIEWER, summary="List brokers", responses=errors(401, 403, 422))
async def list_brokers(
    request: CallerRequest, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = ""
) -> BrokerPage:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.neighbours.brokers.ListBrokers,
        brokers_pb2.ListBrokersRequest(page_size=limit, cursor=cursor),
    )
    return BrokerPage([_json(broker) for broker in answer.brokers], answer.next_cursor or None)


@get(
    "/{broker_id:int}",
    access=Access.VIEWER,
    summary="Look at a broker",
    responses=errors(401, 403, "BROKER_NOT_FOUND"),
)
async def get_broker(request: CallerRequest, broker_id: PathId) -> Broker:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.neighbours.brokers.GetBroker, brokers_pb2.GetBrokerRequest(id=broker_id)
    )
    return _json(answer.broker)


@patch(
    "/{broker_id:int}",
    access=Access.OPERATOR,
    summary="Change a broker",
    dto=StrictJson[BrokerChange],
    responses=errors(
        *(401, 403, 412, 413, 415, 422),
        *("BROKER_NOT_FOUND", "BROKER_NAME_TAKEN", "BROKER_IS_DEFAULT"),
    ),
)
async def update_broker(
    request: CallerRequest, broker_id: PathId, data: JSONBody[BrokerChange]
) -> Broker:
    caller = request.auth
    values = named(data)
    answer = await caller.ask_broker_service(
        caller.neighbours.brokers.UpdateBroker,
        brokers_pb2.UpdateBrokerRequest(
            id=broker_id,
            fields=brokers_pb2.BrokerFields(**present(values)),
            update_mask=mask(values),
        ),
    )
    return _json(answer.broker)


@delete(
    "/{broker_id:int}",
    access=Access.OPERATOR,
    summary="Forget a broker",
    description="Refused with BROKER_IN_USE while a device, fleet or key points at it.",
    responses=errors(401, 403, 412, "BROKER_NOT_FOUND", "BROKER_IN_USE", "BROKER_IS_DEFAULT"),
)
async def delete_broker(request: CallerRequest, broker_id: PathId) -> None:
    caller = request.auth
    await caller.ask_broker_service(
        caller.neighbours.brokers.DeleteBroker, brokers_pb2.DeleteBrokerRequest(id=broker_id)
    )


@post(
    "/{broker_id:int}/default",
    access=Access.OPERATOR,
    summary="Make a broker the default, instead of whichever is",
    status_code=200,
    responses=errors(401, 403, 412, "BROKER_NOT_FOUND", "BROKER_INACTIVE"),
)
async def set_default_broker(request: CallerRequest, broker_id: PathId) -> Broker:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.neighbours.brokers.SetDefaultBroker,
        brokers_pb2.SetDefaultBrokerRequest(id=broker_id),
    )
    return _json(answer.broker)


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
