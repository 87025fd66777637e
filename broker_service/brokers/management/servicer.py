"""gRPC: the managed brokers, with their passwords."""

from typing import Any

from mooring.broker.v1 import management_pb2 as pb
from mooring.broker.v1 import management_pb2_grpc

from broker_service.brokers.management.store import ManagementStore
from broker_service.database import Row, ca_cert_of
from broker_service.errors import SecretUnreadable
from broker_service.passwords import problem_of
from chassis.identities import Identity
from chassis.server import Context
from chassis.servicers import allows
from chassis.trust import Services

# The fields of a managed broker that are columns of the table.
COLUMNS = tuple(
    name
    for name in pb.ManagedBroker.DESCRIPTOR.fields_by_name
    if name not in ("ca_cert", "password", "password_error")
)


class ManagementServicer(management_pb2_grpc.ManagementServiceServicer):
    """Answers from the database, so that every replica returns the last change."""

    def __init__(self, store: ManagementStore) -> None:
        """`store` reads the managed brokers."""
        self._store = store

    # Passwords are decrypted only for the process that manages brokers. No API token may call this.
    @allows(Services(Identity.ENFORCEMENT))
    async def ListManagedBrokers(
        self, request: pb.ListManagedBrokersRequest, context: Context
    ) -> pb.ListManagedBrokersResponse:
        """Raises `Unavailable`."""
        rows = await self._store.managed()
        return pb.ListManagedBrokersResponse(brokers=map(self._proto, rows))

    def _proto(self, row: Row) -> pb.ManagedBroker:
        secret: dict[str, Any]
        try:
            secret = {"password": self._store.password_of(row)}
        except SecretUnreadable as error:
            secret = {"password_error": problem_of(row["id"], error)}
        columns = {name: row[name] for name in COLUMNS}
        return pb.ManagedBroker(**columns, **secret, ca_cert=ca_cert_of(row))
