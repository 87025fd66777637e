"""Finds the destination of each password from the revisions of brokers that had it."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from broker_service.database import destination_in
from broker_service.destinations import Destination, first_given_for
from broker_service.encryption import UNBOUND, VERSION_BYTES
from broker_service.tables import brokers, history

# A broker's id, and a stored password.
Kept: TypeAlias = tuple[int, bytes]


async def destinations_of(
    connection: AsyncConnection, broker_ids: Collection[int]
) -> Mapping[Kept, str]:
    """The encoded destination of every password that is stored without a destination, also in
    histories.
    """
    past = (
        sa.select(history.c.broker_id, history.c.password_encrypted, history.c.state)
        .where(
            history.c.broker_id.in_(broker_ids),
            _is_unbound(history.c.password_encrypted),
            history.c.state.is_not(None),
        )
        .order_by(history.c.broker_id, history.c.revision)
    )
    present = sa.select(brokers).where(
        brokers.c.id.in_(broker_ids), _is_unbound(brokers.c.password_encrypted)
    )
    uses: dict[Kept, list[tuple[bool, Destination]]] = defaultdict(list)

    async def note(key: Kept, columns: Mapping[Any, Any]) -> None:
        is_managed = bool(columns.get("management"))
        uses[key].append((is_managed, await destination_in(connection, columns)))

    for row in (await connection.execute(past)).all():
        await note((row.broker_id, row.password_encrypted), row.state)
    for now in (await connection.execute(present)).mappings():
        await note((now["id"], now["password_encrypted"]), now)
    return {key: first_given_for(each).encoded() for key, each in uses.items()}


def _is_unbound(secret: sa.Column[bytes | None]) -> sa.ColumnElement[bool]:
    return sa.func.substring(secret, 1, VERSION_BYTES) == UNBOUND
