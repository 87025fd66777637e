"""gRPC: API tokens."""

from typing import Any

import sqlalchemy as sa
from mooring.registry.v1 import tokens_pb2 as pb
from mooring.registry.v1 import tokens_pb2_grpc

from chassis.errors import InvalidInput
from chassis.server import Context
from chassis.times import moment_of, timestamp_of
from chassis.trust import Access
from chassis.validation import check_text
from registry_service.credentials import hash_of_secret, new_secret
from registry_service.errors import TokenUnknown
from registry_service.tokens.store import TokenStore

NAME = "mooring.registry.v1.TokenService"
POLICIES = {
    f"/{NAME}/CreateToken": Access.ADMIN,
    f"/{NAME}/AuthenticateToken": Access.SERVICE,
}

PREFIX = "mat"
ROLES = {pb.ROLE_VIEWER: "viewer", pb.ROLE_OPERATOR: "operator", pb.ROLE_ADMIN: "admin"}
ROLE_OF_NAME = {name: role for role, name in ROLES.items()}


class TokenServicer(tokens_pb2_grpc.TokenServiceServicer):
    """Only the hash of a token is kept."""

    def __init__(self, store: TokenStore) -> None:
        """`store` holds the tokens."""
        self._store = store

    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: Context
    ) -> pb.CreateTokenResponse:
        """Raises `InvalidInput`."""
        check_text("name", request.name, shortest=1, longest=255)
        if request.role not in ROLES:
            raise InvalidInput("must be viewer, operator or admin", field="role")
        expires_at = moment_of(request, "expires_at", is_future=True)
        secret = new_secret(PREFIX)
        row = await self._store.create(
            request.name, ROLES[request.role], hash_of_secret(secret), expires_at
        )
        return pb.CreateTokenResponse(token=_proto(row), secret=secret)

    async def AuthenticateToken(
        self, request: pb.AuthenticateTokenRequest, context: Context
    ) -> pb.AuthenticateTokenResponse:
        """Raises `TokenUnknown`."""
        row = await self._store.valid(hash_of_secret(request.secret))
        if row is None:
            raise TokenUnknown("this API token is not valid")
        return pb.AuthenticateTokenResponse(token=_proto(row))


def _proto(row: sa.Row[Any]) -> pb.Token:
    return pb.Token(
        id=str(row.id),
        name=row.name,
        role=ROLE_OF_NAME[row.role],
        created_at=timestamp_of(row.created_at),
        expires_at=timestamp_of(row.expires_at),
    )
