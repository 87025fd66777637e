"""Broker secrets in the database."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, take_turns, writing
from domain.turns import BROKER_SECRETS
from registry_service.errors import BrokerNotFound, BrokerSecretNotFound, TooManyBrokerSecrets
from registry_service.tables import broker_secrets, brokers

# The most secrets of one broker.
MAX_SECRETS = 5

_shown = [column for column in broker_secrets.c if column.name != "secret_hash"]


class BrokerSecretStore:
    """Rows come from `broker_secrets`, without the hash. A broker's secrets are deleted with
    the broker.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def create(self, broker_id: int, *, secret_hash: bytes, prefix: str) -> sa.Row[Any]:
        """The new row. Raises `BrokerNotFound`, `TooManyBrokerSecrets`."""
        theirs = sa.select(sa.func.count()).where(broker_secrets.c.broker_id == broker_id)
        insert = (
            sa.insert(broker_secrets)
            .values(broker_id=broker_id, secret_hash=secret_hash, prefix=prefix)
            .returning(*_shown)
        )
        try:
            async with writing(self._engine) as connection:
                await take_turns(connection, BROKER_SECRETS)
                await _require_broker(connection, broker_id)
                if (await connection.scalar(theirs) or 0) >= MAX_SECRETS:
                    raise TooManyBrokerSecrets(
                        f"the broker has {MAX_SECRETS} secrets already: delete one first"
                    )
                row = (await connection.execute(insert)).one()
                # Without the prefix: no line of the audit log holds a part of a secret.
                after = {"broker_id": broker_id}
                await audit.record(connection, "broker_secret.create", str(row.id), after=after)
                return row
        except IntegrityError:
            # Only one foreign key can be violated: the broker was deleted meanwhile.
            raise _no_broker() from None

    async def secrets_of(self, broker_id: int) -> Sequence[sa.Row[Any]]:
        """The broker's secrets, the oldest first. Raises `BrokerNotFound`."""
        query = (
            sa.select(*_shown)
            .where(broker_secrets.c.broker_id == broker_id)
            .order_by(broker_secrets.c.created_at, broker_secrets.c.id)
        )
        async with reading(self._engine) as connection:
            await _require_broker(connection, broker_id)
            return (await connection.execute(query)).all()

    async def delete(self, broker_id: int, secret_id: UUID) -> None:
        """Raises `BrokerNotFound`, `BrokerSecretNotFound`."""
        delete = (
            sa.delete(broker_secrets)
            .where(broker_secrets.c.broker_id == broker_id, broker_secrets.c.id == secret_id)
            .returning(broker_secrets.c.id)
        )
        async with writing(self._engine) as connection:
            await _require_broker(connection, broker_id)
            if await connection.scalar(delete) is None:
                raise BrokerSecretNotFound("the broker has no such secret")
            before = {"broker_id": broker_id}
            await audit.record(connection, "broker_secret.delete", str(secret_id), before=before)


def _no_broker() -> BrokerNotFound:
    return BrokerNotFound("there is no such broker")


async def _require_broker(connection: AsyncConnection, broker_id: int) -> None:
    query = sa.select(brokers.c.id).where(brokers.c.id == broker_id)
    if await connection.scalar(query) is None:
        raise _no_broker()
