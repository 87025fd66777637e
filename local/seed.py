"""What a first start puts into an empty database, through the services' own doors.

It may be cut off anywhere: what was made is found again, and a token or key whose text was lost
with the cut is made once more.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeVar

from grpc.aio import UnaryUnaryMultiCallable
from mooring.broker.v1 import brokers_pb2, brokers_pb2_grpc
from mooring.registry.v1 import (
    fleets_pb2,
    fleets_pb2_grpc,
    provisioning_keys_pb2,
    provisioning_keys_pb2_grpc,
    tokens_pb2,
    tokens_pb2_grpc,
)

from chassis.client import Neighbour
from chassis.errors import AlreadyExists, MooringError, NotFound, Unauthenticated
from chassis.trust import Access, Actor, Credentials
from local.errors import CannotRun

FLEET = "demo"
LOCAL_BROKER = "Local Broker"
LOCAL_PORT = 5883
CALL_S = 10.0

Request = TypeVar("Request")
Response = TypeVar("Response")


class Service:
    """One of the services, spoken to as an administrator."""

    def __init__(self, address: str, secret: str) -> None:
        """`secret` is the one that the services share."""
        self._neighbour = Neighbour(address, Credentials(secret, None, None))
        self.channel = self._neighbour.channel

    async def ask(
        self, method: UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        """Calls a method of a stub on `channel`; raises its `MooringError`."""
        deadline = asyncio.get_running_loop().time() + CALL_S
        actor = Actor("local", Access.ADMIN)
        return await self._neighbour.call(method, request, deadline=deadline, actor=actor)

    async def close(self) -> None:
        """Ends the channel."""
        await self._neighbour.close()


async def seeded(
    *,
    broker: str,
    registry: str,
    secret: str,
    known: Mapping[str, str],
    mqtt_port: int = LOCAL_PORT,
) -> dict[str, str]:
    """ADMIN_TOKEN and PROVISIONING_KEY, for services at the addresses `broker` and `registry`.

    Those that are `known` are given back while the token is good, and then nothing else is made:
    what an administrator deleted stays deleted. Raises `CannotRun`.
    """
    brokers, registry_service = Service(broker, secret), Service(registry, secret)
    try:
        kept = {name: known.get(name, "") for name in ("ADMIN_TOKEN", "PROVISIONING_KEY")}
        if all(kept.values()) and await _is_good(registry_service, kept["ADMIN_TOKEN"]):
            return kept
        await _make_default_broker(brokers, mqtt_port)
        await _make_fleet(registry_service)
        return {
            "ADMIN_TOKEN": await _make_token(registry_service),
            "PROVISIONING_KEY": await _make_key(registry_service),
        }
    except MooringError as error:
        raise CannotRun(f"the first data cannot be made: {error.message}") from error
    finally:
        await brokers.close()
        await registry_service.close()


async def brokers_of(service: Service) -> list[brokers_pb2.Broker]:
    """All there are, for `service` the broker service."""
    stub = brokers_pb2_grpc.BrokerServiceStub(service.channel)
    page = await service.ask(stub.ListBrokers, brokers_pb2.ListBrokersRequest(page_size=500))
    brokers = list(page.brokers)
    while page.next_cursor:
        listing = brokers_pb2.ListBrokersRequest(page_size=500, cursor=page.next_cursor)
        page = await service.ask(stub.ListBrokers, listing)
        brokers += page.brokers
    return brokers


async def _is_good(registry_service: Service, token: str) -> bool:
    tokens = tokens_pb2_grpc.TokenServiceStub(registry_service.channel)
    request = tokens_pb2.AuthenticateTokenRequest(secret=token)
    try:
        await registry_service.ask(tokens.AuthenticateToken, request)
    except (Unauthenticated, NotFound):
        return False
    return True


async def _make_default_broker(service: Service, port: int) -> None:
    """Makes the local broker, and the default of it where there is none yet."""
    stub = brokers_pb2_grpc.BrokerServiceStub(service.channel)
    fields = brokers_pb2.BrokerFields(
        name=LOCAL_BROKER, protocol="mqtt", host="localhost", port=port
    )
    with suppress(AlreadyExists):
        await service.ask(stub.CreateBroker, brokers_pb2.CreateBrokerRequest(fields=fields))
    brokers = await brokers_of(service)
    ours = next(broker for broker in brokers if broker.fields.name == LOCAL_BROKER)
    # An operator may have made another the default, or taken this one out of use.
    if ours.fields.is_active and not any(broker.is_default for broker in brokers):
        await service.ask(stub.SetDefaultBroker, brokers_pb2.SetDefaultBrokerRequest(id=ours.id))


async def _make_fleet(registry_service: Service) -> None:
    stub = fleets_pb2_grpc.FleetServiceStub(registry_service.channel)
    fields = fleets_pb2.FleetFields(name="Demo")
    request = fleets_pb2.CreateFleetRequest(id=FLEET, fields=fields)
    with suppress(AlreadyExists):
        await registry_service.ask(stub.CreateFleet, request)


async def _make_token(registry_service: Service) -> str:
    stub = tokens_pb2_grpc.TokenServiceStub(registry_service.channel)
    request = tokens_pb2.CreateTokenRequest(name="local admin", role=tokens_pb2.ROLE_ADMIN)
    return (await registry_service.ask(stub.CreateToken, request)).secret


async def _make_key(registry_service: Service) -> str:
    stub = provisioning_keys_pb2_grpc.ProvisioningKeyServiceStub(registry_service.channel)
    request = provisioning_keys_pb2.CreateProvisioningKeyRequest(
        fleet_id=FLEET, description="made by make run"
    )
    return (await registry_service.ask(stub.CreateProvisioningKey, request)).key
