"""gRPC: API tokens."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from mooring.registry.v1 import tokens_pb2 as pb
from mooring.registry.v1 import tokens_pb2_grpc

from chassis import pages
from chassis.errors import InvalidInput, Unauthenticated
from chassis.identities import UNTRUSTED_SERVICE, Identity, caller
from chassis.log import actor_id
from chassis.searching import start_of
from chassis.server import Context
from chassis.servicers import allows
from chassis.tickets import SigningKeys
from chassis.times import moment_of, timestamp_of
from chassis.trust import Access, Services, WithinFleets
from chassis.validation import check_identifier, check_text
from domain.tokens import PREFIX_CHARACTERS, fingerprint_of
from registry_service.administration.tokens.last_use import LastUse
from registry_service.administration.tokens.store import TokenStore
from registry_service.administration.tokens.token_cache import TokenCache
from registry_service.credentials import hash_of_secret, new_secret
from registry_service.errors import TokenNotFound, TokenUnknown

PREFIX = "mat"
# The most fleets of a token: their ids are sent with every call.
MAX_FLEETS = 64
ROLES = {pb.ROLE_VIEWER: "viewer", pb.ROLE_OPERATOR: "operator", pb.ROLE_ADMIN: "admin"}
ROLE_OF_NAME = {name: role for role, name in ROLES.items()}


class TokenServicer(tokens_pb2_grpc.TokenServiceServicer):
    """Only the hash of a token is stored."""

    def __init__(
        self,
        store: TokenStore,
        cache: TokenCache,
        last_use: LastUse,
        signing_keys: Callable[[], SigningKeys],
    ) -> None:
        """`store` holds the tokens, `cache` has the valid ones in memory. `signing_keys` returns
        the ring with which tickets are signed.
        """
        self._store = store
        self._cache = cache
        self._last_use = last_use
        self._signing_keys = signing_keys

    @allows(Access.ADMIN)
    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: Context
    ) -> pb.CreateTokenResponse:
        """Raises `InvalidInput`, `FleetUnknown`."""
        check_text("name", request.name, shortest=1, longest=255)
        if request.role not in ROLES:
            raise InvalidInput("must be viewer, operator or admin", field="role")
        expires_at = moment_of(request, "expires_at", is_future=True)
        secret = new_secret(PREFIX)
        row = await self._store.create(
            request.name,
            ROLES[request.role],
            token_hash=hash_of_secret(secret),
            prefix=secret[:PREFIX_CHARACTERS],
            expires_at=expires_at,
            fleet_ids=_fleet_ids_of(request),
            max_devices=_max_devices_of(request),
        )
        await self._cache.refresh()
        return pb.CreateTokenResponse(token=message_of(row), secret=secret)

    @allows(Access.ADMIN)
    async def ListTokens(
        self, request: pb.ListTokensRequest, context: Context
    ) -> pb.ListTokensResponse:
        """Lists tokens in the order of their ids. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        start = start_of(request.search, request.cursor, UUID)
        rows = await self._store.tokens_from(start, size + 1)
        page, next_cursor = pages.cut(rows, size, lambda row: start.place_of(row.rank, row.id))
        return pb.ListTokensResponse(tokens=map(message_of, page), next_cursor=next_cursor)

    @allows(Access.ADMIN)
    async def GetToken(self, request: pb.GetTokenRequest, context: Context) -> pb.GetTokenResponse:
        """Raises `TokenNotFound`."""
        return pb.GetTokenResponse(token=message_of(await self._store.token(_id_of(request.id))))

    @allows(WithinFleets(Access.VIEWER))
    async def GetOwnToken(
        self, request: pb.GetOwnTokenRequest, context: Context
    ) -> pb.GetOwnTokenResponse:
        """Raises `TokenNotFound` for an actor without a token."""
        return pb.GetOwnTokenResponse(
            token=message_of(await self._store.token(_id_of(actor_id.get())))
        )

    @allows(Access.ADMIN)
    async def RevokeToken(
        self, request: pb.RevokeTokenRequest, context: Context
    ) -> pb.RevokeTokenResponse:
        """Raises `TokenNotFound`, `LastAdminToken`."""
        await self._store.revoke(_id_of(request.id))
        await self._cache.refresh()
        return pb.RevokeTokenResponse()

    @allows(Services(Identity.GATEWAY))
    async def AuthenticateToken(
        self, request: pb.AuthenticateTokenRequest, context: Context
    ) -> pb.AuthenticateTokenResponse:
        """Raises `TokenUnknown`."""
        row = await self._cache.token_of(hash_of_secret(request.secret))
        if row is None:
            raise TokenUnknown("this API token is not valid")
        ticket = ticket_for(row, self._signing_keys())
        self._last_use.note(row.id)
        return pb.AuthenticateTokenResponse(token=message_of(row), ticket=ticket)

    @allows(Services(Identity.GATEWAY))
    async def ListFingerprints(
        self, request: pb.ListFingerprintsRequest, context: Context
    ) -> pb.ListFingerprintsResponse:
        """Lists the fingerprints of all valid tokens, in no particular order."""
        hashes = await self._cache.valid_hashes()
        return pb.ListFingerprintsResponse(fingerprints=map(fingerprint_of, hashes))


def _id_of(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise TokenNotFound("there is no such token") from None


def _fleet_ids_of(request: pb.CreateTokenRequest) -> list[str] | None:
    """The fleets of the new token; None if it is not restricted. Raises `InvalidInput`."""
    if not request.HasField("fleets"):
        return None
    if request.role == pb.ROLE_ADMIN:
        raise InvalidInput("an admin is not restricted", field="fleet_ids")
    fleet_ids = list(dict.fromkeys(request.fleets.ids))
    if not 1 <= len(fleet_ids) <= MAX_FLEETS:
        raise InvalidInput(f"1 to {MAX_FLEETS}", field="fleet_ids")
    for index, fleet_id in enumerate(fleet_ids):
        check_identifier(f"fleet_ids[{index}]", fleet_id)
    return fleet_ids


def _max_devices_of(request: pb.CreateTokenRequest) -> int | None:
    """The limit of the new token; None if it has no limit. Raises `InvalidInput`."""
    if not request.HasField("max_devices"):
        return None
    if not request.HasField("fleets"):
        raise InvalidInput("is for a token that is restricted to fleets", field="max_devices")
    if request.max_devices < 1:
        raise InvalidInput("must be at least 1", field="max_devices")
    return request.max_devices


def ticket_for(row: sa.Row[Any], keys: SigningKeys) -> bytes:
    """A ticket for the owner of a token, which the calling gateway may use. `row` is one of
    `api_tokens`. Raises `Unauthenticated` if the calling service is not known.
    """
    calling = caller.get()
    if calling is None:
        raise Unauthenticated("a ticket needs a caller with an identity", reason=UNTRUSTED_SERVICE)
    return keys.signed(
        audience=calling.name,
        actor=row.name,
        actor_id=str(row.id),
        role=row.role,
        fleets=None if row.fleet_ids is None else tuple(row.fleet_ids),
    )


def message_of(row: sa.Row[Any]) -> pb.Token:
    """A row of `api_tokens` as a message, without the hash."""
    return pb.Token(
        id=str(row.id),
        name=row.name,
        role=ROLE_OF_NAME[row.role],
        created_at=timestamp_of(row.created_at),
        expires_at=timestamp_of(row.expires_at),
        is_active=row.is_active,
        last_used_at=timestamp_of(row.last_used_at),
        prefix=row.prefix,
        fleets=None if row.fleet_ids is None else pb.TokenFleets(ids=row.fleet_ids),
        max_devices=row.max_devices,
        devices_made=row.devices_made,
    )
