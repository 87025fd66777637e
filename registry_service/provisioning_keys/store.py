"""Provisioning keys in the database."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import reading, writing
from registry_service.errors import BrokerUnknown, FleetUnknown, ProvisioningKeyNotFound
from registry_service.tables import provisioning_keys

_columns = [column for column in provisioning_keys.c if column.name != "key_hash"]


class ProvisioningKeyStore:
    """Rows are those of `provisioning_keys`, without the hash."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def create(self, **columns: Any) -> sa.Row[Any]:
        """The new row. Raises `FleetUnknown`, `BrokerUnknown`."""
        insert = sa.insert(provisioning_keys).values(columns).returning(*_columns)
        try:
            async with writing(self._engine) as connection:
                return (await connection.execute(insert)).one()
        except IntegrityError as error:
            diagnosis = getattr(error.orig, "diag", None)
            match diagnosis and diagnosis.constraint_name:
                case "provisioning_keys_fleet_id_fkey":
                    raise FleetUnknown("there is no such fleet", field="fleet_id") from None
                case "provisioning_keys_default_broker_id_fkey":
                    unknown = BrokerUnknown("there is no such broker", field="default_broker_id")
                    raise unknown from None
            raise

    async def keys_after(self, key_id: UUID | None, limit: int) -> Sequence[sa.Row[Any]]:
        """In the order of their ids."""
        query = sa.select(*_columns).order_by(provisioning_keys.c.id).limit(limit)
        if key_id is not None:
            query = query.where(provisioning_keys.c.id > key_id)
        async with reading(self._engine) as connection:
            return (await connection.execute(query)).all()

    async def revoke(self, key_id: UUID) -> None:
        """Raises `ProvisioningKeyNotFound`."""
        update = (
            sa.update(provisioning_keys)
            .where(provisioning_keys.c.id == key_id)
            .values(is_active=False)
            .returning(provisioning_keys.c.id)
        )
        async with writing(self._engine) as connection:
            if await connection.scalar(update) is None:
                raise ProvisioningKeyNotFound("there is no such provisioning key")
