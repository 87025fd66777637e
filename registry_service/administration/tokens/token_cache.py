"""The cache of valid tokens, so that authentication costs no query. The database announces all
changes of tokens. The cache is used while no change was announced since it was read, and the
connection for announcements is known to work. At any other time the database is queried, because a
revocation must end a token at once.
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

    They are looked up, and not compared in constant time: the time of a lookup reveals at most the
    beginning of a hash, and tokens cannot be chosen by their hashes. For a random secret of 256
    bits this does not help an attacker.
    """

    def __init__(self, store: TokenStore, listener: Listener) -> None:
        """`listener` receives announcements of changes."""
        super().__init__(listener)
        self._store = store
        self._tokens: Mapping[bytes, sa.Row[Any]] = {}
        # The state of the announcements when the tokens were read; None if they could not be read.
        self._as_of: tuple[int, int] | None = None

    @property
    def is_current(self) -> bool:
        """Whether the cache is the same as the database."""
        return self._listener.is_listening and self._as_of == self._listener.heard

    async def token_of(self, token_hash: bytes) -> sa.Row[Any] | None:
        """The valid token with this hash. Raises `Unavailable` if that cannot be determined."""
        if self.is_current:
            if (token := self._valid_token(token_hash)) is not None:
                return token
            # Another replica may have created the token a moment ago. A token that an attacker has
            # guessed waits as long, and costs no query.
            await self._listener.caught_up()
            if self.is_current:
                return self._valid_token(token_hash)
        return await self._listener.reading(lambda: self._store.valid_token(token_hash))

    async def valid_hashes(self) -> list[bytes]:
        """The hashes of all valid tokens. Raises `Unavailable` if they are not known."""
        tokens = self._tokens.values() if self.is_current else await self._store.valid_tokens()
        return [token.token_hash for token in tokens if _is_unexpired(token)]

    async def _read(self) -> None:
        heard = self._listener.heard
        try:
            rows = await self._listener.reading(self._store.valid_tokens)
        except (Unavailable, DBAPIError):
            self._as_of = None
            return
        if heard == self._listener.heard:
            self._tokens = {row.token_hash: row for row in rows}
            self._as_of = heard

    def _valid_token(self, token_hash: bytes) -> sa.Row[Any] | None:
        token = self._tokens.get(token_hash)
        return token if token is not None and _is_unexpired(token) else None


def _is_unexpired(token: sa.Row[Any]) -> bool:
    return token.expires_at is None or token.expires_at > datetime.now(UTC)
