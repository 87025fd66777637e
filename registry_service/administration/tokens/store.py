"""API tokens in the database."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, take_turns, writing
from chassis.database_failures import retried
from chassis.errors import Conflict
from chassis.searching import Start, ordered
from domain.turns import FIRST_ADMIN
from registry_service.errors import FleetUnknown, LastAdminToken, TokenNotFound
from registry_service.tables import api_tokens, fleets

# The channel on which the database announces that a token was created, changed or revoked.
CHANNEL = "mooring_tokens"

_shown = [column for column in api_tokens.c if column.name != "token_hash"]
is_valid = sa.and_(
    api_tokens.c.is_active,
    sa.or_(api_tokens.c.expires_at.is_(None), api_tokens.c.expires_at > sa.func.now()),
)


class TokenStore:
    """Rows come from `api_tokens`; a token is valid until it is revoked or expires."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def create(
        self,
        name: str,
        role: str,
        *,
        token_hash: bytes,
        prefix: str,
        expires_at: datetime | None,
        fleet_ids: Sequence[str] | None = None,
        max_devices: int | None = None,
        is_first: bool = False,
    ) -> sa.Row[Any]:
        """The new row, without the hash. The token is restricted to `fleet_ids`, and may add
        `max_devices` devices; None is no limit. With `is_first`, it is created only if no admin
        token is valid; of concurrent calls, one succeeds.

        Raises `FleetUnknown`, and `Conflict` if `is_first` and an admin token is valid.
        """
        insert = (
            sa.insert(api_tokens)
            .values(
                name=name,
                role=role,
                token_hash=token_hash,
                prefix=prefix,
                expires_at=expires_at,
                fleet_ids=fleet_ids,
                max_devices=max_devices,
            )
            .returning(*_shown)
        )
        after: dict[str, Any] = {"name": name, "role": role}
        if expires_at is not None:
            after["expires_at"] = expires_at.isoformat()
        if fleet_ids is not None:
            after["fleet_ids"] = fleet_ids
        if max_devices is not None:
            after["max_devices"] = max_devices
        async with writing(self._engine) as connection:
            if is_first:
                await _require_no_admin(connection)
            await _require_fleets(connection, fleet_ids or ())
            row = (await connection.execute(insert)).one()
            await audit.record(connection, "token.create", str(row.id), after=after)
            return row

    async def tokens_from(self, start: Start[UUID], limit: int) -> Sequence[sa.Row[Any]]:
        """The next `limit` tokens, in the order of their ids, without hashes."""
        query = ordered(
            sa.select(*_shown),
            start,
            api_tokens.c.id,
            texts=(api_tokens.c.name,),
            ids=(api_tokens.c.prefix,),
        )
        async with reading(self._engine) as connection:
            rows: Sequence[sa.Row[Any]] = (await connection.execute(query.limit(limit))).all()
        return rows

    async def token(self, token_id: UUID) -> sa.Row[Any]:
        """The token's row, without the hash. Raises `TokenNotFound`."""
        query = sa.select(*_shown).where(api_tokens.c.id == token_id)
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise TokenNotFound("there is no such token")
        return row

    async def revoke(self, token_id: UUID) -> None:
        """Revokes the token; does nothing if it was revoked before. Raises `TokenNotFound`,
        `LastAdminToken`.
        """
        await retried(lambda: self._revoke(token_id))

    async def _revoke(self, token_id: UUID) -> None:
        admins = (
            sa.select(api_tokens.c.id)
            .where(api_tokens.c.role == "admin", is_valid)
            .order_by(api_tokens.c.id)
            .with_for_update()
        )
        found = sa.select(api_tokens.c.is_active).where(api_tokens.c.id == token_id)
        revoke = sa.update(api_tokens).where(api_tokens.c.id == token_id).values(is_active=False)
        async with writing(self._engine) as connection:
            # These row locks prevent two admins from revoking each other at the same time.
            left = set((await connection.execute(admins)).scalars())
            is_active = await connection.scalar(found)
            if is_active is None:
                raise TokenNotFound("there is no such token")
            if not is_active:
                return
            if left == {token_id}:
                raise LastAdminToken("no admin token would be left: make another one first")
            await connection.execute(revoke)
            await audit.record(
                connection,
                "token.revoke",
                str(token_id),
                before={"is_active": True},
                after={"is_active": False},
            )

    async def valid_token(self, token_hash: bytes) -> sa.Row[Any] | None:
        """The valid token with this hash."""
        query = sa.select(api_tokens).where(api_tokens.c.token_hash == token_hash, is_valid)
        async with reading(self._engine) as connection:
            return (await connection.execute(query)).one_or_none()

    async def valid_tokens(self) -> Sequence[sa.Row[Any]]:
        """All valid tokens, with their hashes."""
        async with reading(self._engine) as connection:
            return (await connection.execute(sa.select(api_tokens).where(is_valid))).all()

    async def note_use(self, used_at: Mapping[UUID, datetime]) -> None:
        """Writes when tokens were last used, unless a later time is stored already."""
        noted = (
            sa.func.unnest(
                sa.cast(list(used_at), sa.ARRAY(sa.Uuid)),
                sa.cast(list(used_at.values()), sa.ARRAY(sa.DateTime(timezone=True))),
            )
            .table_valued("id", "at")
            .render_derived()
        )
        # All replicas lock tokens in one order, so that they cannot deadlock.
        locked = (
            sa.select(api_tokens.c.id)
            .where(api_tokens.c.id.in_(list(used_at)))
            .order_by(api_tokens.c.id)
            .with_for_update(key_share=True)
            .cte("locked")
            .prefix_with("MATERIALIZED", dialect="postgresql")
        )
        update = (
            sa.update(api_tokens)
            .where(
                api_tokens.c.id == locked.c.id,
                api_tokens.c.id == noted.c.id,
                sa.func.coalesce(api_tokens.c.last_used_at < noted.c.at, sa.true()),
            )
            .values(last_used_at=noted.c.at)
        )
        async with writing(self._engine) as connection:
            await connection.execute(update)


async def _require_no_admin(connection: AsyncConnection) -> None:
    """Raises `Conflict` if an admin token is valid. Other calls wait for the commit."""
    await take_turns(connection, FIRST_ADMIN)
    admins = sa.select(api_tokens.c.id).where(api_tokens.c.role == "admin", is_valid).limit(1)
    if await connection.scalar(admins) is not None:
        raise Conflict("there is an admin token already")


async def _require_fleets(connection: AsyncConnection, fleet_ids: Sequence[str]) -> None:
    """Raises `FleetUnknown` for the first fleet that does not exist, for example because its id is
    misspelled. The others are locked: a fleet that is deleted afterwards is removed from this token
    too.
    """
    query = sa.select(fleets.c.id).where(fleets.c.id.in_(fleet_ids)).order_by(fleets.c.id)
    query = query.with_for_update(read=True, key_share=True)
    found = set((await connection.execute(query)).scalars()) if fleet_ids else set()
    for index, fleet_id in enumerate(fleet_ids):
        if fleet_id not in found:
            raise FleetUnknown("there is no such fleet", field=f"fleet_ids[{index}]")
