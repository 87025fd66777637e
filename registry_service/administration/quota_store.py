"""How many more devices an API token may add: a count in its row, which each adding transaction
updates.
"""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.log import actor_id
from registry_service.tables import api_tokens


async def places_left(connection: AsyncConnection) -> int | None:
    """The rest of the quota of the current actor's token; None without a quota. The row is locked,
    so that transactions of one token run one after the other and the count is exact.
    """
    token_id = _token_id()
    if token_id is None:
        return None
    left = api_tokens.c.max_devices - api_tokens.c.devices_made
    query = sa.select(left).where(
        api_tokens.c.id == token_id, api_tokens.c.max_devices.is_not(None)
    )
    return await connection.scalar(query.with_for_update(key_share=True))


async def take_places(connection: AsyncConnection, count: int) -> None:
    """Adds to the count. Call it in the transaction that has read the rest of the quota."""
    taken = {api_tokens.c.devices_made: api_tokens.c.devices_made + count}
    await connection.execute(
        sa.update(api_tokens).where(api_tokens.c.id == _token_id()).values(taken)
    )


def _token_id() -> UUID | None:
    """The id of the actor's API token; None if the actor has none."""
    try:
        return UUID(actor_id.get())
    except ValueError:
        return None
