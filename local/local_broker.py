"""The local broker as our own to drive: the Mosquitto that is started here stands behind it."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from mooring.broker.v1 import brokers_pb2, brokers_pb2_grpc, management_pb2, management_pb2_grpc

from chassis.errors import MooringError
from local.errors import CannotRun
from local.mosquitto import Login
from local.seed import LOCAL_BROKER, Service, brokers_of

MANAGEMENT = "mosquitto"


async def entrusted(*, broker: str, secret: str, login: Login, port: int) -> int | None:
    """The id of the local broker, which is driven with `login` from now on, at `port`.

    None where it is not ours to drive: it is deleted, inactive or elsewhere, or an operator has
    said otherwise how it is driven. `broker` is the broker service's address. Raises `CannotRun`.
    """
    service = Service(broker, secret)
    try:
        return await _entrusted(service, login, port)
    except MooringError as error:
        raise CannotRun(f"the local broker cannot be driven: {error.message}") from error
    finally:
        await service.close()


async def _entrusted(service: Service, login: Login, port: int) -> int | None:
    brokers = await brokers_of(service)
    ours = next((one for one in brokers if one.fields.name == LOCAL_BROKER), None)
    if ours is None or not (_is_as_made(ours, port) or _is_driven(ours, login)):
        return None
    wanted = {
        "port": port,
        "management": MANAGEMENT,
        "username": login.username,
        "password": login.password,
    }
    if await _known(service, ours) != wanted:
        await _update(service, ours, wanted)
    return ours.id


def _is_here(broker: brokers_pb2.Broker) -> bool:
    fields = broker.fields
    return fields.is_active and (fields.protocol, fields.host) == ("mqtt", "localhost")


def _is_as_made(broker: brokers_pb2.Broker, port: int) -> bool:
    fields = broker.fields
    has_login = bool(fields.username) or broker.has_password
    return _is_here(broker) and fields.port == port and not (fields.management or has_login)


def _is_driven(broker: brokers_pb2.Broker, login: Login) -> bool:
    fields = broker.fields
    return _is_here(broker) and (fields.management, fields.username) == (MANAGEMENT, login.username)


async def _known(service: Service, broker: brokers_pb2.Broker) -> Mapping[str, Any]:
    """How it is driven so far; its password is for our own services alone."""
    stub = management_pb2_grpc.ManagementServiceStub(service.channel)
    request = management_pb2.ListManagedBrokersRequest()
    answer = await service.ask(stub.ListManagedBrokers, request)
    for one in answer.brokers:
        if one.id == broker.id:
            names = ("port", "management", "username", "password")
            return {name: getattr(one, name) for name in names}
    return {}


async def _update(service: Service, broker: brokers_pb2.Broker, wanted: Mapping[str, Any]) -> None:
    stub = brokers_pb2_grpc.BrokerServiceStub(service.channel)
    request = brokers_pb2.UpdateBrokerRequest(
        id=broker.id,
        fields=brokers_pb2.BrokerFields(**wanted),
        update_mask=FieldMask(paths=list(wanted)),
        # Whoever changes it at this moment goes first; the next start looks again.
        if_revision=[broker.revision],
    )
    await service.ask(stub.UpdateBroker, request)
