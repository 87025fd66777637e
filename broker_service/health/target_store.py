"""Reads the brokers that are probed."""

from collections.abc import Sequence

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from broker_service.brokers.store import BrokerStore
from broker_service.brokers.testing.targets import Target, target_of
from broker_service.database import Row, all_brokers
from broker_service.encryption import EncryptionKeys
from broker_service.tables import brokers
from chassis.database import reading
from chassis.errors import Unavailable
from chassis.following import Follower
from chassis.listening import Listener

log = structlog.get_logger(__name__)

_active = all_brokers.where(brokers.c.is_active).order_by(brokers.c.id)


class Targets(Follower):
    """The active brokers with their logins. Without a database, the last ones stay."""

    def __init__(self, engine: AsyncEngine, listener: Listener, keys: EncryptionKeys) -> None:
        """`engine` connects as mooring_broker; `keys` decrypt the passwords."""
        super().__init__(listener)
        self._engine = engine
        self._password_of = BrokerStore(engine, keys).password_of
        self.current: dict[int, Target] = {}

    async def _read(self) -> None:
        try:
            rows = await self._listener.reading(self._rows)
        except (Unavailable, DBAPIError):
            log.warning("the brokers to probe cannot be read")
            return
        self.current = {row["id"]: target_of(row, self._password_of) for row in rows}

    async def _rows(self) -> Sequence[Row]:
        async with reading(self._engine) as connection:
            return (await connection.execute(_active)).mappings().all()
