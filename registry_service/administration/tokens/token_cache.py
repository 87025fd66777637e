"""The good tokens in memory: whose a token is costs the database nothing.

The database announces what changes about tokens, whoever changes it. As long as nothing has been
announced since they were read, and the connection it is announced on is known to be good, memory
is believed; at any other time the database is asked, for to revoke a token is to end it at once.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from chassis.errors import Unavailable
from chassis.following import Follower
from chassis.listening import Listener
from registry_service.administration.tokens.store import TokenStore


class TokenCache(Follower):
    """Tokens are rows of `api_tokens`, known by the SHA-256 of the whole token.

    They are looked up, and not compared in constant time: a lookup tells by its time at most how a
    hash begins, and nobody can choose tokens by their hashes. Of a random secret of 256 bits that
    helps to guess nothing.
    """

    def __init__(self, store: TokenStore, listener: Listener) -> None:
        """`listener` hears of changes."""
        super().__init__(listener)
        self._store = store
        self._tokens: Mapping[bytes, sa.Row[Any]] = {}
        # What had been heard when they were read; None where they could not be.
        self._as_of: tuple[int, int] | None = None

    @property
    def is_current(self) -> bool:
        """Whether memory holds what the database does."""
        return self._listener.is_listening and self._as_of == self._listener.heard

    async def token_of(self, token_hash: bytes) -> sa.Row[Any] | None:
        """The good token with this hash. Raises `Unavailable` where nobody can tell."""
        if self.is_current:
            if (token := self._good(token_hash)) is not None:
                return token
            # It may have been made a moment ago, at another replica. One that was guessed waits as
            # long, and costs the database nothing either.
            await self._listener.caught_up()
            if self.is_current:
                return self._good(token_hash)
        return await self._listener.reading(lambda: self._store.good_token(token_hash))

    async def good_hashes(self) -> list[bytes]:
        """Of all good tokens. Raises `Unavailable` where nobody can tell."""
        tokens = self._tokens.values() if self.is_current else await self._store.good_tokens()
        return [token.token_hash for token in tokens if _is_unexpired(token)]

    async def _read(self) -> None:
        heard = self._listener.heard
        try:
            rows = await self._listener.reading(self._store.good_tokens)
        except (Unavailable, DBAPIError):
            self._as_of = None
            return
        if heard == self._listener.heard:
            self._tokens = {row.token_hash: row for row in rows}
            self._as_of = heard

    def _good(self, token_hash: bytes) -> sa.Row[Any] | None:
        token = self._tokens.get(token_hash)
        return token if token is not None and _is_unexpired(token) else None


def _is_unexpired(token: sa.Row[Any]) -> bool:
    return token.expires_at is None or token.expires_at > datetime.now(UTC)
