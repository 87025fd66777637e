"""gRPC: server keys."""

from mooring.registry.v1 import server_keys_pb2 as pb
from mooring.registry.v1 import server_keys_pb2_grpc

from chassis.server import Context
from chassis.servicers import allows
from chassis.trust import Access
from registry_service.administration.server_keys.store import ServerKeyStore, Usage
from registry_service.credentials import KeyRing


class ServerKeyServicer(server_keys_pb2_grpc.ServerKeyServiceServicer):
    """No answer contains the keys themselves."""

    def __init__(self, store: ServerKeyStore, ring: KeyRing) -> None:
        """`ring` holds this process's server keys."""
        self._store = store
        self._ring = ring

    @allows(Access.ADMIN)
    async def ListServerKeys(
        self, request: pb.ListServerKeysRequest, context: Context
    ) -> pb.ListServerKeysResponse:
        """Lists keys in the order of their ids."""
        usage = await self._store.usage()
        response = pb.ListServerKeysResponse()
        for key_id in sorted(usage.keys() | self._ring.keys.keys()):
            used = usage.get(key_id, Usage())
            response.server_keys.add(
                id=key_id,
                is_active=key_id == self._ring.active_id,
                is_in_ring=key_id in self._ring.keys,
                devices=used.devices,
                disabled_devices=used.disabled_devices,
            )
        return response
