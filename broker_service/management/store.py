"""The brokers in the database that Mooring itself drives."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from broker_service.brokers.database import Row, password_place
from broker_service.encryption import EncryptionKeys
from broker_service.placements.store import all_brokers
from broker_service.tables import brokers
from chassis.database import reading

_managed = all_brokers.where(brokers.c.is_active, brokers.c.management != "").order_by(brokers.c.id)


class ManagementStore:
    """Reads only. Rows are those of `all_brokers`."""

    def __init__(self, engine: AsyncEngine, keys: EncryptionKeys) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine
        self._keys = keys

    async def managed(self) -> Sequence[Row]:
        """Those that are active, in the order of their ids. Raises `Unavailable`."""
        async with reading(self._engine) as connection:
            return (await connection.execute(_managed)).mappings().all()

    def password_of(self, row: Row) -> str:
        """Raises `SecretUnreadable`."""
        return self._keys.decrypt(row["password_encrypted"], place=password_place(row["id"]))
