"""The keys that let devices in: `/api/v1/provisioning-keys`."""

from datetime import datetime
from typing import Annotated

from litestar import Router, delete, get, post
from litestar.params import JSONBody, PathParameter
from mooring.registry.v1 import provisioning_keys_pb2
from msgspec import Meta, Struct

from gateway.administration.caller import CallerRequest
from gateway.administration.fields import Id, Moment, moment_of, optional, timestamp
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page
from gateway.bodies import StrictJson
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.problems import errors

KeyId = Annotated[str, PathParameter(description="The key's id, which is not the key.")]


class NewProvisioningKey(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a key lets in. Null is as good as absent."""

    fleet_id: Annotated[str, documented(pattern=IDENTIFIER_PATTERN)]
    description: Annotated[str, documented(maxLength=2000)] | None = None
    max_devices: Annotated[Id, Meta(description="Null: no limit.")] | None = None
    default_broker_id: (
        Annotated[Id, Meta(description="Becomes the pin of every device the key makes.")] | None
    ) = None
    expires_at: Annotated[Moment, Meta(description="Null: never.")] | None = None


class ProvisioningKey(Struct, kw_only=True, frozen=True):
    """A key as it is, without the key itself."""

    id: str
    fleet_id: str
    description: str
    max_devices: int | None
    devices_provisioned: int
    default_broker_id: int | None
    expires_at: datetime | None
    is_active: bool
    created_at: datetime | None
    last_used_at: datetime | None


class CreatedProvisioningKey(ProvisioningKey, kw_only=True, frozen=True):
    """`key` is what devices send. It is shown here and never again."""

    key: str


class ProvisioningKeyPage(Page[ProvisioningKey], frozen=True):
    """Keys, in the order of their ids."""


def _json(key: provisioning_keys_pb2.ProvisioningKey) -> ProvisioningKey:
    return ProvisioningKey(
        id=key.id,
        fleet_id=key.fleet_id,
        description=key.description,
        max_devices=optional(key, "max_devices"),
        devices_provisioned=key.devices_provisioned,
        default_broker_id=optional(key, "default_broker_id"),
        expires_at=moment_of(key, "expires_at"),
        is_active=key.is_active,
        created_at=moment_of(key, "created_at"),
        last_used_at=moment_of(key, "last_used_at"),
    )


@post(
    "/",
    summary="Make a provisioning key",
    dto=StrictJson[NewProvisioningKey],
    responses=errors(401, 403, 404, 409, 412, 413, 415, 422),
)
async def create_provisioning_key(
    request: CallerRequest, data: JSONBody[NewProvisioningKey]
) -> CreatedProvisioningKey:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.neighbours.provisioning_keys.CreateProvisioningKey,
        provisioning_keys_pb2.CreateProvisioningKeyRequest(
            fleet_id=data.fleet_id,
            description=data.description or "",
            max_devices=data.max_devices,
            default_broker_id=data.default_broker_id,
            expires_at=timestamp("expires_at", data.expires_at),
        ),
    )
    made = _json(answer.provisioning_key)
    return CreatedProvisioningKey(
        **{name: getattr(made, name) for name in made.__struct_fields__}, key=answer.key
    )


@get("/", summary="List provisioning keys", responses=errors(401, 403, 422))
async def list_provisioning_keys(
    request: CallerRequest, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = ""
) -> ProvisioningKeyPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.neighbours.provisioning_keys.ListProvisioningKeys,
        provisioning_keys_pb2.ListProvisioningKeysRequest(page_size=limit, cursor=cursor),
    )
    return ProvisioningKeyPage(
        [_json(key) for key in answer.provisioning_keys], answer.next_cursor or None
    )


@delete(
    "/{key_id:str}",
    summary="Revoke a provisioning key",
    description="Ends it, for the devices it made too.",
    responses=errors(401, 403, 404, 409, 412, 422),
)
async def revoke_provisioning_key(request: CallerRequest, key_id: KeyId) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.neighbours.provisioning_keys.RevokeProvisioningKey,
        provisioning_keys_pb2.RevokeProvisioningKeyRequest(id=key_id),
    )


ROUTES = Router(
    "/provisioning-keys",
    route_handlers=[create_provisioning_key, list_provisioning_keys, revoke_provisioning_key],
    tags=["provisioning keys"],
)
