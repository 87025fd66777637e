"""The keys with which credentials of devices are made: `/api/v1/server-keys`."""

from typing import Annotated, Any, ClassVar

from litestar import Router, get
from mooring.registry.v1 import server_keys_pb2
from msgspec import Meta, Struct

from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.listing import Page


class ServerKey(Struct, kw_only=True, frozen=True):
    """How many devices use a server key. No answer contains the key itself."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": 1,
        "is_active": True,
        "is_in_ring": True,
        "devices": 1,
        "disabled_devices": 0,
    }

    id: int
    is_active: Annotated[bool, Meta(description="Whether new credentials are made with it.")]
    is_in_ring: Annotated[
        bool,
        Meta(
            description="Whether the registry service that answers has the key. Without the "
            "key, its devices cannot connect."
        ),
    ]
    devices: Annotated[int, Meta(description="Active devices that still use the key.")]
    disabled_devices: Annotated[int, Meta(description="Disabled devices that still use the key.")]


class ServerKeyPage(Page[ServerKey], frozen=True):
    """All server keys, in the order of their ids."""


@get(
    "/",
    access=Access.ADMIN,
    summary="List server keys",
)
async def list_server_keys(request: CallerRequest) -> ServerKeyPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.server_keys.ListServerKeys, server_keys_pb2.ListServerKeysRequest()
    )
    return ServerKeyPage(
        [
            ServerKey(
                id=key.id,
                is_active=key.is_active,
                is_in_ring=key.is_in_ring,
                devices=key.devices,
                disabled_devices=key.disabled_devices,
            )
            for key in answer.server_keys
        ],
        None,
    )


ROUTES = Router("/server-keys", route_handlers=[list_server_keys], tags=["server keys"])
