"""The API tokens of people and scripts: `/api/v1/tokens`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from litestar import Router, delete, get, post
from litestar.params import JSONBody, PathParameter
from mooring.registry.v1 import tokens_pb2
from msgspec import Meta, Struct

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import Id, Moment, moment_of, optional, timestamp
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page, searched
from gateway.bodies import StrictJson
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.examples import MOMENT, TOKEN_ID

Role = Literal["viewer", "operator", "admin"]
TokenId = Annotated[str, PathParameter(description="The token's id, which is not the token.")]

ROLES: "dict[Role, tokens_pb2.Role.ValueType]" = {
    "viewer": tokens_pb2.ROLE_VIEWER,
    "operator": tokens_pb2.ROLE_OPERATOR,
    "admin": tokens_pb2.ROLE_ADMIN,
}


class NewToken(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The name, role and limits of a new token."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "name": "nightly backup",
        "role": "viewer",
        "expires_at": "2099-12-31T23:59:59Z",
        "fleet_ids": ["demo"],
    }

    name: Annotated[
        str,
        documented(
            minLength=1,
            maxLength=255,
            description="The name under which the audit log records the token's use.",
            examples=["nightly backup"],
        ),
    ]
    role: Annotated[Role, Meta(description="Each role includes the rights of the roles before it.")]
    expires_at: Annotated[Moment, Meta(description="Null: never.")] | None = None
    fleet_ids: (
        Annotated[
            list[Annotated[str, documented(pattern=IDENTIFIER_PATTERN)]],
            documented(
                minItems=1,
                maxItems=64,
                description="Restricts the token to these fleets: it can read and change "
                "nothing else. Not allowed for admins. Null: not restricted.",
            ),
        ]
        | None
    ) = None
    max_devices: (
        Annotated[
            Id,
            Meta(
                description="How many devices the token may add as expected or by importing "
                "them; only for tokens that are restricted to fleets. Null: any number."
            ),
        ]
        | None
    ) = None


class Token(Struct, kw_only=True, frozen=True):
    """A token, without the token itself."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": TOKEN_ID,
        "name": "nightly backup",
        "role": "viewer",
        "prefix": "mat_tV5pQ7",
        "is_active": True,
        "expires_at": "2099-12-31T23:59:59Z",
        "created_at": MOMENT,
        "last_used_at": None,
        "fleet_ids": ["demo"],
        "max_devices": None,
        "devices_made": 0,
    }

    id: str
    name: str
    role: str
    prefix: Annotated[
        str, Meta(description="The first characters of the token, to recognise it by.")
    ]
    is_active: Annotated[bool, Meta(description="False once it was revoked.")]
    expires_at: datetime | None
    created_at: datetime | None
    last_used_at: Annotated[datetime, Meta(description="Updated at most once a minute.")] | None
    fleet_ids: (
        Annotated[
            list[str],
            Meta(description="The fleets that it is restricted to; null: it is not restricted."),
        ]
        | None
    )
    max_devices: (
        Annotated[int, Meta(description="How many devices it may add; null: any number.")] | None
    )
    devices_made: Annotated[
        int, Meta(description="How many devices it has added, if it has a `max_devices`.")
    ]


class CreatedToken(Token, kw_only=True, frozen=True):
    """`token` is sent as `Authorization: Bearer <token>`. Only this answer contains it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        **Token.EXAMPLE,
        "token": "mat_tV5pQ7rS9uW1xY3zA5bC7dE9fG1hI3jK5lM7nO9pQ1r",
    }

    token: str


class TokenPage(Page[Token], frozen=True):
    """Tokens, in the order of their ids."""


def _json(token: tokens_pb2.Token) -> Token:
    return Token(
        id=token.id,
        name=token.name,
        role=tokens_pb2.Role.Name(token.role).removeprefix("ROLE_").lower(),
        prefix=token.prefix,
        is_active=token.is_active,
        expires_at=moment_of(token, "expires_at"),
        created_at=moment_of(token, "created_at"),
        last_used_at=moment_of(token, "last_used_at"),
        fleet_ids=list(token.fleets.ids) if token.HasField("fleets") else None,
        max_devices=optional(token, "max_devices"),
        devices_made=token.devices_made,
    )


@post(
    "/",
    access=Access.ADMIN,
    action="token.create",
    summary="Create an API token",
    description="The answer contains the token itself, which is stored nowhere.",
    dto=StrictJson[NewToken],
    reasons=("FLEET_UNKNOWN",),
)
async def create_token(request: CallerRequest, data: JSONBody[NewToken]) -> CreatedToken:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.tokens.CreateToken,
        tokens_pb2.CreateTokenRequest(
            name=data.name,
            role=ROLES[data.role],
            expires_at=timestamp("expires_at", data.expires_at),
            fleets=None if data.fleet_ids is None else tokens_pb2.TokenFleets(ids=data.fleet_ids),
            max_devices=data.max_devices,
        ),
    )
    made = _json(answer.token)
    return CreatedToken(
        **{name: getattr(made, name) for name in made.__struct_fields__}, token=answer.secret
    )


@get(
    "/",
    access=Access.ADMIN,
    summary="List API tokens",
)
async def list_tokens(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    search: Annotated[
        str,
        searched(
            "whose name contains this, or whose prefix or id begins with it (four characters or"
            " more)"
        ),
    ] = "",
) -> TokenPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.tokens.ListTokens,
        tokens_pb2.ListTokensRequest(page_size=limit, cursor=cursor, search=search),
    )
    return TokenPage([_json(token) for token in answer.tokens], answer.next_cursor or None)


@get(
    "/self",
    access=WithinFleets(Access.VIEWER),
    summary="Get the token of this request",
    description="The name, role, limits and expiry of the token that this request sends.",
    reasons=("TOKEN_NOT_FOUND",),
)
async def get_own_token(request: CallerRequest) -> Token:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.tokens.GetOwnToken, tokens_pb2.GetOwnTokenRequest()
    )
    return _json(answer.token)


@get(
    "/{token_id:str}",
    access=Access.ADMIN,
    summary="Get an API token",
    reasons=("TOKEN_NOT_FOUND",),
)
async def get_token(request: CallerRequest, token_id: TokenId) -> Token:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.tokens.GetToken, tokens_pb2.GetTokenRequest(id=token_id)
    )
    return _json(answer.token)


@delete(
    "/{token_id:str}",
    access=Access.ADMIN,
    action="token.revoke",
    summary="Revoke an API token",
    description=(
        "Ends the token at once and for ever. Repeating it changes nothing. Refused with "
        "LAST_ADMIN_TOKEN while no other token of an admin is valid."
    ),
    reasons=("TOKEN_NOT_FOUND", "LAST_ADMIN_TOKEN"),
)
async def revoke_token(request: CallerRequest, token_id: TokenId) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.services.tokens.RevokeToken, tokens_pb2.RevokeTokenRequest(id=token_id)
    )


ROUTES = Router(
    "/tokens",
    route_handlers=[create_token, list_tokens, get_own_token, get_token, revoke_token],
    tags=["API tokens"],
)
