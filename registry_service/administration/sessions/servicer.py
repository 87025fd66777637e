"""gRPC: console sessions and sign-in codes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from mooring.registry.v1 import sessions_pb2 as pb
from mooring.registry.v1 import sessions_pb2_grpc

from chassis.identities import Identity
from chassis.log import actor_id
from chassis.server import Context
from chassis.servicers import allows
from chassis.tickets import SigningKeys
from chassis.times import timestamp_of
from chassis.trust import Access, Services, WithinFleets
from registry_service.administration.sessions.store import SessionStore
from registry_service.administration.tokens.last_use import LastUse
from registry_service.administration.tokens.servicer import message_of, ticket_for
from registry_service.credentials import hash_of_secret, new_secret
from registry_service.errors import SessionEnded, SignInCodeUnknown, TokenUnknown

SESSION_PREFIX = "mcs"
CODE_PREFIX = "msc"
CODE_LASTS = timedelta(minutes=5)


class SessionServicer(sessions_pb2_grpc.SessionServiceServicer):
    """Only the hashes of secrets and codes are stored."""

    def __init__(
        self,
        store: SessionStore,
        last_use: LastUse,
        signing_keys: Callable[[], SigningKeys],
        *,
        idle_s: float,
        longest_s: float,
    ) -> None:
        """`last_use` records the use of tokens. `signing_keys` returns the ring with which tickets
        are signed. `idle_s` and `longest_s` are those of the store.
        """
        self._store = store
        self._last_use = last_use
        self._signing_keys = signing_keys
        self._idle = timedelta(seconds=idle_s)
        self._longest = timedelta(seconds=longest_s)

    @allows(WithinFleets(Access.VIEWER))
    async def CreateSession(
        self, request: pb.CreateSessionRequest, context: Context
    ) -> pb.CreateSessionResponse:
        """Raises `TokenUnknown`."""
        secret = new_secret(SESSION_PREFIX)
        row = await self._store.create(_own_token_id(), hash_of_secret(secret))
        return pb.CreateSessionResponse(session=self._session(row), secret=secret)

    @allows(WithinFleets(Access.VIEWER))
    async def EndSession(
        self, request: pb.EndSessionRequest, context: Context
    ) -> pb.EndSessionResponse:
        """Raises `TokenUnknown`."""
        await self._store.end(_own_token_id(), hash_of_secret(request.secret))
        return pb.EndSessionResponse()

    @allows(Services(Identity.GATEWAY))
    async def AuthenticateSession(
        self, request: pb.AuthenticateSessionRequest, context: Context
    ) -> pb.AuthenticateSessionResponse:
        """Raises `SessionEnded`."""
        row = await self._store.valid_session(hash_of_secret(request.secret), is_use=request.is_use)
        if row is None:
            raise SessionEnded("this session has ended: sign in again")
        ticket = ticket_for(row, self._signing_keys())
        self._last_use.note(row.id)
        return pb.AuthenticateSessionResponse(
            session=self._session(row), token=message_of(row), ticket=ticket
        )

    @allows(WithinFleets(Access.VIEWER))
    async def CreateSignInCode(
        self, request: pb.CreateSignInCodeRequest, context: Context
    ) -> pb.CreateSignInCodeResponse:
        """Raises `TokenUnknown`."""
        code = new_secret(CODE_PREFIX)
        expires_at = await self._store.create_code(
            _own_token_id(), hash_of_secret(code), CODE_LASTS
        )
        return pb.CreateSignInCodeResponse(code=code, expires_at=timestamp_of(expires_at))

    @allows(Services(Identity.GATEWAY))
    async def AuthenticateSignInCode(
        self, request: pb.AuthenticateSignInCodeRequest, context: Context
    ) -> pb.AuthenticateSignInCodeResponse:
        """Raises `SignInCodeUnknown`."""
        row = await self._store.consume_code(hash_of_secret(request.code))
        if row is None:
            raise SignInCodeUnknown("this sign-in code was used before, or has expired")
        return pb.AuthenticateSignInCodeResponse(
            token=message_of(row), ticket=ticket_for(row, self._signing_keys())
        )

    def _session(self, row: sa.Row[Any]) -> pb.Session:
        return pb.Session(
            id=str(row.session_id),
            created_at=timestamp_of(row.began_at),
            ends_at=timestamp_of(row.began_at + self._longest),
            idle_at=timestamp_of(row.session_used_at + self._idle),
        )


def _own_token_id() -> UUID:
    """The id of the caller's token. Raises `TokenUnknown` for a caller without a token."""
    try:
        return UUID(actor_id.get())
    except ValueError:
        raise TokenUnknown("a session needs an API token") from None
