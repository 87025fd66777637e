"""gRPC: provisioning keys."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from mooring.registry.v1 import provisioning_keys_pb2 as pb
from mooring.registry.v1 import provisioning_keys_pb2_grpc

from chassis import pages
from chassis.errors import InvalidInput
from chassis.server import Context
from chassis.times import moment_of, timestamp_of
from chassis.trust import Access
from chassis.validation import check_identifier, check_range, check_text
from registry_service.credentials import hash_of_secret, new_secret
from registry_service.errors import ProvisioningKeyNotFound
from registry_service.provisioning_keys.store import ProvisioningKeyStore

NAME = "mooring.registry.v1.ProvisioningKeyService"
POLICIES = {
    f"/{NAME}/CreateProvisioningKey": Access.OPERATOR,
    f"/{NAME}/ListProvisioningKeys": Access.VIEWER,
    f"/{NAME}/RevokeProvisioningKey": Access.OPERATOR,
}

PREFIX = "mpk"
MAX_INT32 = 2**31 - 1


class ProvisioningKeyServicer(provisioning_keys_pb2_grpc.ProvisioningKeyServiceServicer):
    """Only the hash of a key is kept."""

    def __init__(self, store: ProvisioningKeyStore) -> None:
        """`store` holds the keys."""
        self._store = store

    async def CreateProvisioningKey(
        self, request: pb.CreateProvisioningKeyRequest, context: Context
    ) -> pb.CreateProvisioningKeyResponse:
        """Raises `InvalidInput`, `FleetUnknown`, `BrokerUnknown`."""
        check_identifier("fleet_id", request.fleet_id)
        check_text("description", request.description, longest=2_000)
        if request.HasField("max_devices"):
            check_range("max_devices", request.max_devices, 1, MAX_INT32)
        key = new_secret(PREFIX)
        row = await self._store.create(
            key_hash=hash_of_secret(key),
            fleet_id=request.fleet_id,
            description=request.description,
            max_devices=request.max_devices if request.HasField("max_devices") else None,
            default_broker_id=(
                request.default_broker_id if request.HasField("default_broker_id") else None
            ),
            expires_at=moment_of(request, "expires_at", is_future=True),
        )
        return pb.CreateProvisioningKeyResponse(provisioning_key=_proto(row), key=key)

    async def ListProvisioningKeys(
        self, request: pb.ListProvisioningKeysRequest, context: Context
    ) -> pb.ListProvisioningKeysResponse:
        """In the order of their ids. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        last = pages.after(request.cursor, str)
        try:
            rows = await self._store.keys_after(UUID(last) if last else None, size + 1)
        except ValueError:
            raise InvalidInput("this cursor is not one of ours", field="cursor") from None
        page, next_cursor = pages.cut(rows, size, lambda row: str(row.id))
        return pb.ListProvisioningKeysResponse(
            provisioning_keys=map(_proto, page), next_cursor=next_cursor
        )

    async def RevokeProvisioningKey(
        self, request: pb.RevokeProvisioningKeyRequest, context: Context
    ) -> pb.RevokeProvisioningKeyResponse:
        """Raises `ProvisioningKeyNotFound`."""
        try:
            key_id = UUID(request.id)
        except ValueError:
            raise ProvisioningKeyNotFound("there is no such provisioning key") from None
        await self._store.revoke(key_id)
        return pb.RevokeProvisioningKeyResponse()


def _proto(row: sa.Row[Any]) -> pb.ProvisioningKey:
    return pb.ProvisioningKey(
        id=str(row.id),
        fleet_id=row.fleet_id,
        description=row.description,
        max_devices=row.max_devices,
        devices_provisioned=row.devices_provisioned,
        default_broker_id=row.default_broker_id,
        expires_at=timestamp_of(row.expires_at),
        is_active=row.is_active,
        created_at=timestamp_of(row.created_at),
        last_used_at=timestamp_of(row.last_used_at),
    )
