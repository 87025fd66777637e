"""The keys with which devices register: `/api/v1/provisioning-keys`."""

from typing import Annotated, Any

from litestar import Response, Router, delete, get, patch, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from mooring.registry.v1 import provisioning_keys_pb2

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import (
    mask,
    moment_of,
    named,
    optional,
    present,
    timestamp,
)
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, searched
from gateway.administration.preconditions import IF_REVISION, IfRevision, tagged
from gateway.administration.provisioning_key_types import (
    CreatedProvisioningKey,
    ListedProvisioningKey,
    NewProvisioningKey,
    ProvisioningKey,
    ProvisioningKeyChange,
    ProvisioningKeyPage,
    Revocation,
    Revoked,
)
from gateway.bodies import StrictJson

KeyId = Annotated[str, PathParameter(description="The key's id, which is not the key.")]

# The columns that restrict a key, by their names in the proto.
RESTRICTIONS = {
    "allowed_device_types": "device_types",
    "source_networks": "source_networks",
    "allowed_uuids": "uuids",
    "uuid_prefix": "uuid_prefix",
    "only_expected": "only_expected",
}


def _listed(key: provisioning_keys_pb2.ProvisioningKey) -> dict[str, Any]:
    restrictions = key.restrictions
    return {
        "id": key.id,
        "fleet_id": key.fleet_id,
        "description": key.description,
        "max_devices": optional(key, "max_devices"),
        "devices_provisioned": key.devices_provisioned,
        "default_broker_id": optional(key, "default_broker_id"),
        "default_pool_id": optional(key, "default_pool_id"),
        "expires_at": moment_of(key, "expires_at"),
        "is_active": key.is_active,
        "created_at": moment_of(key, "created_at"),
        "updated_at": moment_of(key, "updated_at"),
        "last_used_at": moment_of(key, "last_used_at"),
        "allowed_device_types": _values(restrictions, "device_types"),
        "source_networks": _values(restrictions, "source_networks"),
        "allowed_uuid_count": optional(key, "allowed_uuid_count"),
        "uuid_prefix": optional(restrictions, "uuid_prefix"),
        "only_expected": restrictions.only_expected,
        "revision": key.revision,
    }


def _whole(key: provisioning_keys_pb2.ProvisioningKey) -> dict[str, Any]:
    return {**_listed(key), "allowed_uuids": _values(key.restrictions, "uuids")}


def _answer(key: provisioning_keys_pb2.ProvisioningKey) -> Response[ProvisioningKey]:
    """The key with its `ETag`, which stays the same while the key is only used."""
    return tagged(ProvisioningKey(**_whole(key)), key.revision)


def _values(restrictions: provisioning_keys_pb2.Restrictions, name: str) -> list[str] | None:
    allowed = optional(restrictions, name)
    return None if allowed is None else list(allowed.values)


def _restrictions(values: dict[str, Any]) -> provisioning_keys_pb2.Restrictions:
    """The restrictions in `values` as in the proto, where an optional list is a message."""
    given: dict[str, Any] = {
        name: provisioning_keys_pb2.Allowed(values=value) if isinstance(value, list) else value
        for column, name in RESTRICTIONS.items()
        if (value := values.get(column)) is not None
    }
    return provisioning_keys_pb2.Restrictions(**given)


@post(
    "/",
    access=WithinFleets(Access.OPERATOR),
    action="provisioning_key.create",
    summary="Create a provisioning key",
    dto=StrictJson[NewProvisioningKey],
    reasons=("FLEET_UNKNOWN", "BROKER_UNKNOWN", "BROKER_NOT_ALLOWED", "POOL_UNKNOWN"),
)
async def create_provisioning_key(
    request: CallerRequest, data: JSONBody[NewProvisioningKey]
) -> Response[CreatedProvisioningKey]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.provisioning_keys.CreateProvisioningKey,
        provisioning_keys_pb2.CreateProvisioningKeyRequest(
            fleet_id=data.fleet_id,
            description=data.description or "",
            max_devices=data.max_devices,
            default_broker_id=data.default_broker_id,
            default_pool_id=data.default_pool_id,
            expires_at=timestamp("expires_at", data.expires_at),
            restrictions=_restrictions(named(data)),
        ),
    )
    made = CreatedProvisioningKey(**_whole(answer.provisioning_key), key=answer.key)
    return tagged(made, made.revision)


@get(
    "/",
    access=WithinFleets(Access.VIEWER),
    summary="List provisioning keys",
)
async def list_provisioning_keys(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    fleet_id: Annotated[str, QueryParameter(description="Only keys of this fleet.")] = "",
    is_active: Annotated[
        bool | None,
        QueryParameter(
            description="true: only keys that are not revoked; false: only revoked keys."
        ),
    ] = None,
    used_percent: Annotated[
        int | None,
        QueryParameter(
            ge=0,
            le=100,
            description="Only keys with `max_devices`, of which at least this share is used.",
        ),
    ] = None,
    search: Annotated[
        str,
        searched(
            "whose description or fleet's id contains this, or whose id begins with it (four"
            " characters or more)"
        ),
    ] = "",
) -> ProvisioningKeyPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.provisioning_keys.ListProvisioningKeys,
        provisioning_keys_pb2.ListProvisioningKeysRequest(
            page_size=limit,
            cursor=cursor,
            fleet_id=fleet_id,
            is_active=is_active,
            used_percent=used_percent,
            search=search,
        ),
    )
    return ProvisioningKeyPage(
        [ListedProvisioningKey(**_listed(key)) for key in answer.provisioning_keys],
        answer.next_cursor or None,
    )


@get(
    "/{key_id:str}",
    access=WithinFleets(Access.VIEWER),
    summary="Get a provisioning key",
    reasons=("PROVISIONING_KEY_NOT_FOUND",),
)
async def get_provisioning_key(request: CallerRequest, key_id: KeyId) -> Response[ProvisioningKey]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.provisioning_keys.GetProvisioningKey,
        provisioning_keys_pb2.GetProvisioningKeyRequest(id=key_id),
    )
    return _answer(answer.provisioning_key)


@patch(
    "/{key_id:str}",
    access=WithinFleets(Access.OPERATOR),
    action="provisioning_key.update",
    summary="Change a provisioning key",
    description="After the answer, no device registers that the changed key would refuse.",
    dto=StrictJson[ProvisioningKeyChange],
    dependencies=IF_REVISION,
    reasons=(
        "PROVISIONING_KEY_NOT_FOUND",
        "MAX_DEVICES_BELOW_USE",
        "BROKER_UNKNOWN",
        "BROKER_NOT_ALLOWED",
        "POOL_UNKNOWN",
    ),
)
async def update_provisioning_key(
    request: CallerRequest,
    key_id: KeyId,
    data: JSONBody[ProvisioningKeyChange],
    if_revision: IfRevision,
) -> Response[ProvisioningKey]:
    caller = request.auth
    values = named(data)
    fields = {name: value for name, value in values.items() if name not in RESTRICTIONS}
    if "expires_at" in fields:
        fields["expires_at"] = timestamp("expires_at", fields["expires_at"])
    paths = {
        f"restrictions.{RESTRICTIONS[name]}" if name in RESTRICTIONS else name: None
        for name in values
    }
    answer = await caller.ask_registry(
        caller.services.provisioning_keys.UpdateProvisioningKey,
        provisioning_keys_pb2.UpdateProvisioningKeyRequest(
            id=key_id,
            fields=provisioning_keys_pb2.ProvisioningKeyFields(
                **present(fields), restrictions=_restrictions(values)
            ),
            update_mask=mask(paths),
            if_revision=if_revision,
        ),
    )
    return _answer(answer.provisioning_key)


@delete(
    "/{key_id:str}",
    access=WithinFleets(Access.OPERATOR),
    action="provisioning_key.revoke",
    summary="Revoke a provisioning key",
    description="Ends the key: devices that registered with it cannot register again with it "
    "either.",
    dependencies=IF_REVISION,
    reasons=("PROVISIONING_KEY_NOT_FOUND",),
)
async def delete_provisioning_key(
    request: CallerRequest, key_id: KeyId, if_revision: IfRevision
) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.services.provisioning_keys.RevokeProvisioningKey,
        provisioning_keys_pb2.RevokeProvisioningKeyRequest(id=key_id, if_revision=if_revision),
    )


@post(
    "/{key_id:str}/revoke",
    access=WithinFleets(Access.OPERATOR),
    action="provisioning_key.revoke",
    status_code=200,
    summary="Revoke a provisioning key, with its devices",
    description="Safe to repeat: devices that were deactivated stay so. The first request makes a "
    "revision of the key.",
    dto=StrictJson[Revocation],
    dependencies=IF_REVISION,
    reasons=("PROVISIONING_KEY_NOT_FOUND",),
)
async def revoke_provisioning_key(
    request: CallerRequest,
    key_id: KeyId,
    data: JSONBody[Revocation],
    if_revision: IfRevision,
) -> Revoked:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.provisioning_keys.RevokeProvisioningKey,
        provisioning_keys_pb2.RevokeProvisioningKeyRequest(
            id=key_id,
            deactivate_devices=data.devices == "deactivate",
            if_revision=if_revision,
        ),
    )
    return Revoked(devices_deactivated=answer.devices_deactivated, is_complete=answer.is_complete)


ROUTES = Router(
    "/provisioning-keys",
    route_handlers=[
        create_provisioning_key,
        list_provisioning_keys,
        get_provisioning_key,
        update_provisioning_key,
        delete_provisioning_key,
        revoke_provisioning_key,
    ],
    tags=["provisioning keys"],
)
