"""gRPC: provisioning keys."""

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from mooring.registry.v1 import provisioning_keys_pb2 as pb
from mooring.registry.v1 import provisioning_keys_pb2_grpc

from chassis import isolation, pages
from chassis.errors import InvalidInput
from chassis.searching import start_of
from chassis.server import Context, deadline_of
from chassis.servicers import allows
from chassis.times import moment_of, timestamp_of
from chassis.trust import Access, WithinFleets
from chassis.validation import check_identifier, check_range, check_text
from registry_service.administration.provisioning_keys import restrictions
from registry_service.administration.provisioning_keys.store import ProvisioningKeyStore
from registry_service.credentials import hash_of_secret, new_secret
from registry_service.errors import ProvisioningKeyNotFound

PREFIX = "mpk"
MAX_INT32 = 2**31 - 1
# The part of the caller's time that is kept for the answer, while devices are deactivated.
ANSWERING_S = 2.0


class ProvisioningKeyServicer(provisioning_keys_pb2_grpc.ProvisioningKeyServiceServicer):
    """Only the hash of a key is stored."""

    def __init__(self, store: ProvisioningKeyStore) -> None:
        """`store` holds the keys."""
        self._store = store

    @allows(WithinFleets(Access.OPERATOR))
    async def CreateProvisioningKey(
        self, request: pb.CreateProvisioningKeyRequest, context: Context
    ) -> pb.CreateProvisioningKeyResponse:
        """Raises `InvalidInput`, `FleetUnknown`, `BrokerUnknown`, `BrokerNotAllowed`,
        `PoolUnknown`.
        """
        check_identifier("fleet_id", request.fleet_id)
        fields = pb.ProvisioningKeyFields(
            description=request.description, restrictions=request.restrictions
        )
        if request.HasField("max_devices"):
            fields.max_devices = request.max_devices
        if request.HasField("default_broker_id"):
            fields.default_broker_id = request.default_broker_id
        if request.HasField("default_pool_id"):
            fields.default_pool_id = request.default_pool_id
        moment_of(request, "expires_at", is_future=True)
        if request.HasField("expires_at"):
            fields.expires_at.CopyFrom(request.expires_at)
        key = new_secret(PREFIX)
        columns = _named(fields, FIELDS)
        row = await self._store.create(
            isolation.fleets.get(),
            key_hash=hash_of_secret(key),
            fleet_id=request.fleet_id,
            **columns,
        )
        return pb.CreateProvisioningKeyResponse(provisioning_key=_proto(row), key=key)

    @allows(WithinFleets(Access.VIEWER))
    async def GetProvisioningKey(
        self, request: pb.GetProvisioningKeyRequest, context: Context
    ) -> pb.GetProvisioningKeyResponse:
        """Raises `ProvisioningKeyNotFound`."""
        row = await self._store.key(_existing(request.id), isolation.fleets.get())
        return pb.GetProvisioningKeyResponse(provisioning_key=_proto(row))

    @allows(WithinFleets(Access.VIEWER))
    async def ListProvisioningKeys(
        self, request: pb.ListProvisioningKeysRequest, context: Context
    ) -> pb.ListProvisioningKeysResponse:
        """Lists keys in the order of their ids. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        if request.fleet_id:
            check_identifier("fleet_id", request.fleet_id)
        if request.HasField("used_percent"):
            check_range("used_percent", request.used_percent, 0, 100)
        start = start_of(request.search, request.cursor, UUID)
        rows = await self._store.keys_from(
            start,
            size + 1,
            isolation.fleets.get(),
            fleet_id=request.fleet_id or None,
            is_active=request.is_active if request.HasField("is_active") else None,
            used_percent=request.used_percent if request.HasField("used_percent") else None,
        )
        page, next_cursor = pages.cut(rows, size, lambda row: start.place_of(row.rank, row.id))
        return pb.ListProvisioningKeysResponse(
            provisioning_keys=map(_proto, page), next_cursor=next_cursor
        )

    @allows(WithinFleets(Access.OPERATOR))
    async def UpdateProvisioningKey(
        self, request: pb.UpdateProvisioningKeyRequest, context: Context
    ) -> pb.UpdateProvisioningKeyResponse:
        """Raises `InvalidInput`, `ProvisioningKeyNotFound`, `BrokerUnknown`, `BrokerNotAllowed`,
        `PoolUnknown`, `MaxDevicesBelowUse`, `LostRace`.

        After it has returned, no device registers if the changed key does not allow it.
        """
        key_id = _existing(request.id)
        columns = _named(request.fields, request.update_mask.paths)
        within = isolation.fleets.get()
        row = await self._store.update(key_id, columns, within, request.if_revision)
        return pb.UpdateProvisioningKeyResponse(provisioning_key=_proto(row))

    @allows(WithinFleets(Access.OPERATOR))
    async def RevokeProvisioningKey(
        self, request: pb.RevokeProvisioningKeyRequest, context: Context
    ) -> pb.RevokeProvisioningKeyResponse:
        """Raises `ProvisioningKeyNotFound`, `LostRace`. Revokes the key before it deactivates
        devices.
        """
        key_id = _existing(request.id)
        within = isolation.fleets.get()
        fleet_id = await self._store.revoke(key_id, within, request.if_revision)
        response = pb.RevokeProvisioningKeyResponse(is_complete=True)
        if not request.deactivate_devices:
            return response
        loop = asyncio.get_running_loop()
        ends = deadline_of(context) - ANSWERING_S
        last: int | None = 0
        while last is not None:
            count, last = await self._store.deactivate_devices_after(last, key_id, fleet_id)
            response.devices_deactivated += count
            if last is not None and loop.time() > ends:
                response.is_complete = False
                break
        return response


FIELDS = (
    *("description", "max_devices", "default_broker_id", "default_pool_id", "expires_at"),
    *(f"restrictions.{name}" for name in restrictions.COLUMNS),
)


def _existing(key_id: str) -> UUID:
    """The id. Raises `ProvisioningKeyNotFound`, without a query, if no key can have it."""
    try:
        return UUID(key_id)
    except ValueError:
        raise ProvisioningKeyNotFound("there is no such provisioning key") from None


def _named(fields: pb.ProvisioningKeyFields, names: Iterable[str]) -> dict[str, Any]:
    """The named fields as columns; a named field that is not set is cleared."""
    columns: dict[str, Any] = {}
    restricted = []
    for name in names:
        match name:
            case "description":
                check_text("description", fields.description, longest=2_000)
                columns["description"] = fields.description
            case "max_devices":
                is_limited = fields.HasField("max_devices")
                if is_limited:
                    check_range("max_devices", fields.max_devices, 1, MAX_INT32)
                columns["max_devices"] = fields.max_devices if is_limited else None
            case "default_broker_id" | "default_pool_id":
                columns[name] = getattr(fields, name) if fields.HasField(name) else None
            case "expires_at":
                columns["expires_at"] = moment_of(fields, "expires_at")
            case _ if name in FIELDS:
                restricted.append(name.removeprefix("restrictions."))
            case _:
                raise InvalidInput("names an unknown field of a key", field="update_mask")
    return columns | restrictions.columns_of(fields.restrictions, restricted)


def _proto(row: sa.Row[Any]) -> pb.ProvisioningKey:
    """The key as a message. Not all queries read `allowed_uuids`, because it may be long."""
    uuids = getattr(row, "allowed_uuids", None)
    return pb.ProvisioningKey(
        id=str(row.id),
        fleet_id=row.fleet_id,
        description=row.description,
        max_devices=row.max_devices,
        devices_provisioned=row.devices_provisioned,
        default_broker_id=row.default_broker_id,
        default_pool_id=row.default_pool_id,
        expires_at=timestamp_of(row.expires_at),
        is_active=row.is_active,
        created_at=timestamp_of(row.created_at),
        last_used_at=timestamp_of(row.last_used_at),
        restrictions=pb.Restrictions(
            device_types=_allowed(row.allowed_device_types),
            source_networks=_allowed(row.source_networks),
            uuids=_allowed(uuids),
            uuid_prefix=row.uuid_prefix,
            only_expected=row.only_expected,
        ),
        allowed_uuid_count=row.allowed_uuid_count,
        updated_at=timestamp_of(row.updated_at),
        revision=row.revision,
    )


def _allowed(values: Iterable[object] | None) -> pb.Allowed | None:
    return None if values is None else pb.Allowed(values=map(str, values))
