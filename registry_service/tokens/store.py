"""API tokens in the database."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import reading, writing
from registry_service.tables import api_tokens


class TokenStore:
    """Rows are those of `api_tokens`."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def create(
        self, name: str, role: str, token_hash: bytes, expires_at: datetime | None
    ) -> sa.Row[Any]:
        """The new row."""
        insert = (
            sa.insert(api_tokens)
            .values(name=name, role=role, token_hash=token_hash, expires_at=expires_at)
            .returning(api_tokens)
        )
        async with writing(self._engine) as connection:
            row: sa.Row[Any] = (await connection.execute(insert)).one()
            return row

    async def valid(self, token_hash: bytes) -> sa.Row[Any] | None:
        """The token with this hash, unless it was revoked or has expired."""
        query = sa.select(api_tokens).where(
            api_tokens.c.token_hash == token_hash,
            api_tokens.c.is_active,
            sa.or_(api_tokens.c.expires_at.is_(None), api_tokens.c.expires_at > sa.func.now()),
        )
        async with reading(self._engine) as connection:
            return (await connection.execute(query)).one_or_none()
