"""How many devices an API token may still name: a count on its row, kept by whoever names them."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.log import actor_id
from registry_service.tables import api_tokens


async def places_left(connection: AsyncConnection) -> int | None:
    """Of the token of the actor that is served; None for one without a quota.

    Its row is locked, so that transactions of one token take turns and the count is exact.
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
    """In the transaction that has asked how many are left."""
    taken = {api_tokens.c.devices_made: api_tokens.c.devices_made + count}
    await connection.execute(
        sa.update(api_tokens).where(api_tokens.c.id == _token_id()).values(taken)
    )


def _token_id() -> UUID | None:
    """None where the actor has shown no token of ours."""
    try:
        return UUID(actor_id.get())
    except ValueError:
        return None
