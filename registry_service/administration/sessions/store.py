"""Console sessions and sign-in codes in the database."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, writing
from registry_service.administration.tokens.store import is_valid
from registry_service.errors import TokenUnknown
from registry_service.tables import api_tokens, console_sessions, sign_in_codes

# A use within this time of the last recorded one is not written.
RECORD_EVERY = timedelta(minutes=1)

_session = [
    console_sessions.c.id.label("session_id"),
    console_sessions.c.created_at.label("began_at"),
    console_sessions.c.last_used_at.label("session_used_at"),
]


class SessionStore:
    """A session is valid while its token is valid, it is used, and it is not too old."""

    def __init__(self, engine: AsyncEngine, *, idle_s: float, longest_s: float) -> None:
        """`engine` connects as mooring_registry. A session ends `idle_s` seconds after its last
        use, and `longest_s` seconds after its beginning.
        """
        self._engine = engine
        self._idle = timedelta(seconds=idle_s)
        self._longest = timedelta(seconds=longest_s)
        self._is_alive = sa.and_(
            console_sessions.c.created_at > sa.func.now() - self._longest,
            console_sessions.c.last_used_at > sa.func.now() - self._idle,
        )

    async def create(self, token_id: UUID, secret_hash: bytes) -> sa.Row[Any]:
        """A new session of a token: the token's row with `session_id`, `began_at` and
        `session_used_at`. Deletes sessions that have ended. Raises `TokenUnknown` if the token is
        not valid.
        """
        ended = sa.delete(console_sessions).where(sa.not_(self._is_alive))
        insert = sa.insert(console_sessions).values(token_id=token_id, secret_hash=secret_hash)
        async with writing(self._engine) as connection:
            await _require_valid(connection, token_id)
            await connection.execute(ended)
            await connection.execute(insert)
            row: sa.Row[Any] = (await connection.execute(self._valid(secret_hash))).one()
            await audit.record(connection, "session.create", str(row.session_id), after={})
            return row

    async def valid_session(self, secret_hash: bytes, *, is_use: bool) -> sa.Row[Any] | None:
        """The token's row with `session_id`, `began_at` and `session_used_at`, or None if there is
        no such session or it has ended. `is_use` records that it is used now.
        """
        use = (
            sa.update(console_sessions)
            .where(
                console_sessions.c.secret_hash == secret_hash,
                console_sessions.c.last_used_at < sa.func.now() - RECORD_EVERY,
                self._is_alive,
            )
            .values(last_used_at=sa.func.now())
        )
        async with reading(self._engine) as connection:
            found = await connection.execute(self._valid(secret_hash))
            row: sa.Row[Any] | None = found.one_or_none()
            if row is not None and is_use:
                await connection.execute(use)
            return row

    async def end(self, token_id: UUID, secret_hash: bytes) -> None:
        """Ends a session of this token, if it has this session."""
        delete = (
            sa.delete(console_sessions)
            .where(
                console_sessions.c.secret_hash == secret_hash,
                console_sessions.c.token_id == token_id,
            )
            .returning(console_sessions.c.id)
        )
        async with writing(self._engine) as connection:
            session_id = await connection.scalar(delete)
            if session_id is not None:
                await audit.record(connection, "session.end", str(session_id), before={})

    async def create_code(self, token_id: UUID, code_hash: bytes, lasts: timedelta) -> datetime:
        """When the new code expires. Deletes codes that have expired. Raises `TokenUnknown` if the
        token is not valid.
        """
        expired = sa.delete(sign_in_codes).where(sign_in_codes.c.expires_at <= sa.func.now())
        insert = (
            sa.insert(sign_in_codes)
            .values(token_id=token_id, code_hash=code_hash, expires_at=sa.func.now() + lasts)
            .returning(sign_in_codes.c.expires_at)
        )
        async with writing(self._engine) as connection:
            await _require_valid(connection, token_id)
            await connection.execute(expired)
            expires_at: datetime = (await connection.execute(insert)).scalar_one()
            return expires_at

    async def consume_code(self, code_hash: bytes) -> sa.Row[Any] | None:
        """The row of the code's token, or None if the code is unknown or has expired, or the token
        is not valid. Of several calls with the same code, one gets the row.
        """
        consumed = (
            sa.delete(sign_in_codes)
            .where(sign_in_codes.c.code_hash == code_hash)
            .returning(sign_in_codes.c.token_id, sign_in_codes.c.expires_at)
            .cte("consumed")
        )
        query = sa.select(api_tokens).where(
            api_tokens.c.id == consumed.c.token_id,
            consumed.c.expires_at > sa.func.now(),
            is_valid,
        )
        async with writing(self._engine) as connection:
            return (await connection.execute(query)).one_or_none()

    def _valid(self, secret_hash: bytes) -> sa.Select[Any]:
        return sa.select(api_tokens, *_session).where(
            console_sessions.c.secret_hash == secret_hash,
            console_sessions.c.token_id == api_tokens.c.id,
            self._is_alive,
            is_valid,
        )


async def _require_valid(connection: AsyncConnection, token_id: UUID) -> None:
    """Raises `TokenUnknown`. The ticket of the call may be older than the token's revocation."""
    query = sa.select(api_tokens.c.id).where(api_tokens.c.id == token_id, is_valid)
    if await connection.scalar(query) is None:
        raise TokenUnknown("this API token is not valid")
