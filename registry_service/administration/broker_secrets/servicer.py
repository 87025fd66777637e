"""gRPC: broker secrets."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from mooring.registry.v1 import broker_secrets_pb2 as pb
from mooring.registry.v1 import broker_secrets_pb2_grpc

from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access
from domain.tokens import PREFIX_CHARACTERS
from registry_service.administration.broker_secrets.store import BrokerSecretStore
from registry_service.credentials import hash_of_secret, new_secret
from registry_service.errors import BrokerSecretNotFound

PREFIX = "mbs"


class BrokerSecretServicer(broker_secrets_pb2_grpc.BrokerSecretServiceServicer):
    """Only the hash of a secret is stored."""

    def __init__(self, store: BrokerSecretStore) -> None:
        """`store` holds the secrets."""
        self._store = store

    @allows(Access.OPERATOR)
    async def CreateBrokerSecret(
        self, request: pb.CreateBrokerSecretRequest, context: Context
    ) -> pb.CreateBrokerSecretResponse:
        """Raises `BrokerNotFound`, `TooManyBrokerSecrets`."""
        secret = new_secret(PREFIX)
        row = await self._store.create(
            request.broker_id,
            secret_hash=hash_of_secret(secret),
            prefix=secret[:PREFIX_CHARACTERS],
        )
        return pb.CreateBrokerSecretResponse(broker_secret=_proto(row), secret=secret)

    @allows(Access.VIEWER)
    async def ListBrokerSecrets(
        self, request: pb.ListBrokerSecretsRequest, context: Context
    ) -> pb.ListBrokerSecretsResponse:
        """Lists the oldest secret first. Raises `BrokerNotFound`."""
        rows = await self._store.secrets_of(request.broker_id)
        return pb.ListBrokerSecretsResponse(broker_secrets=map(_proto, rows))

    @allows(Access.OPERATOR)
    async def DeleteBrokerSecret(
        self, request: pb.DeleteBrokerSecretRequest, context: Context
    ) -> pb.DeleteBrokerSecretResponse:
        """Raises `BrokerNotFound`, `BrokerSecretNotFound`."""
        try:
            secret_id = UUID(request.id)
        except ValueError:
            raise BrokerSecretNotFound("the broker has no such secret") from None
        await self._store.delete(request.broker_id, secret_id)
        return pb.DeleteBrokerSecretResponse()


def _proto(row: sa.Row[Any]) -> pb.BrokerSecret:
    return pb.BrokerSecret(
        id=str(row.id),
        broker_id=row.broker_id,
        prefix=row.prefix,
        created_at=timestamp_of(row.created_at),
        last_used_at=timestamp_of(row.last_used_at),
    )
