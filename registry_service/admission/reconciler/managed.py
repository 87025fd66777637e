"""The managed brokers and their logins, from the broker service."""

import asyncio

import structlog
from mooring.broker.v1 import management_pb2 as pb
from mooring.broker.v1 import management_pb2_grpc

from chassis.address_policy import NAME, UNRESTRICTED, AddressPolicy
from chassis.client import ServiceClient
from registry_service.admission.reconciler.http_management import Emqx, HttpSettings, RabbitMq
from registry_service.admission.reconciler.mosquitto_client import ControlSettings, DynamicSecurity
from registry_service.errors import ControlNotAllowed, ControlUnreachable

log = structlog.get_logger(__name__)

# The time for an answer, which needs one query.
ANSWER_S = 1.0

Driver = DynamicSecurity | Emqx | RabbitMq


class ManagedBrokers:
    """Calls the broker service."""

    def __init__(self, broker_service: ServiceClient) -> None:
        """Has no state."""
        self._broker_service = broker_service
        self._stub = management_pb2_grpc.ManagementServiceStub(broker_service.channel)

    async def now(self) -> list[pb.ManagedBroker]:
        """The managed brokers. Raises the `MooringError` of a failed call."""
        response = await self._broker_service.call(
            self._stub.ListManagedBrokers,
            pb.ListManagedBrokersRequest(),
            deadline=asyncio.get_running_loop().time() + ANSWER_S,
        )
        return list(response.brokers)


def driver_of(broker: pb.ManagedBroker, policy: AddressPolicy) -> Driver:
    """The client that manages the broker, at addresses that the policy allows. Raises
    `ControlNotAllowed` or `ControlUnreachable` if there is none.
    """
    if broker.password_error:
        raise ControlNotAllowed(broker.password_error)
    if broker.may_be_local and policy != UNRESTRICTED:
        log.warning(
            "a broker is managed at an address of this machine, because it was before the upgrade",
            broker_id=broker.id,
            setting=NAME,
        )
        policy = UNRESTRICTED
    ca_pem = broker.ca_cert if broker.HasField("ca_cert") else None
    if broker.management == "mosquitto":
        if broker.protocol not in ("mqtt", "mqtts"):
            raise ControlUnreachable("a Mosquitto is managed over mqtt or mqtts, not websockets")
        return DynamicSecurity(
            ControlSettings(
                broker.host,
                broker.port,
                broker.username,
                broker.password,
                use_tls=broker.use_tls,
                ca_pem=ca_pem,
                verify_certificate=broker.verify_certificate,
                policy=policy,
            )
        )
    settings = HttpSettings(
        broker.management_url,
        broker.username,
        broker.password,
        ca_pem,
        broker.verify_certificate,
        policy,
    )
    return Emqx(settings) if broker.management == "emqx" else RabbitMq(settings)
