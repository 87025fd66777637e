"""gRPC: replacing certificates."""

from datetime import UTC, datetime

from mooring.broker.v1 import rotations_pb2 as pb
from mooring.broker.v1 import rotations_pb2_grpc

from broker_service.certificates.reading import Certificate
from broker_service.certificates.rotations.progress import CertificateRotation, Notified
from broker_service.certificates.rotations.store import RotationStore
from broker_service.certificates.servicer import proto_of, read, warnings
from broker_service.refreshing import Refresh
from chassis import pages
from chassis.errors import InvalidInput
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access
from chassis.validation import check_range

DEFAULT_THRESHOLD_PERCENT = 99
NOTIFIED: dict[int, Notified] = {
    pb.TOLD_GENERATION_OLD: Notified.OLD,
    pb.TOLD_GENERATION_BOTH: Notified.BOTH,
    pb.TOLD_GENERATION_NEW: Notified.NEW,
}


class RotationServicer(rotations_pb2_grpc.RotationServiceServicer):
    """A change takes effect in this replica before the caller gets its answer."""

    def __init__(self, store: RotationStore, refresh: Refresh) -> None:
        """`refresh` makes a change that was committed take effect in this process."""
        self._store = store
        self._refresh = refresh

    @allows(Access.OPERATOR)
    async def StageRotation(
        self, request: pb.StageRotationRequest, context: Context
    ) -> pb.StageRotationResponse:
        """Raises `InvalidInput`, `CertificateNotFound`, `CertificateUnknown`,
        `RotationUnderWay`.
        """
        threshold = DEFAULT_THRESHOLD_PERCENT
        if request.HasField("threshold_percent"):
            check_range("threshold_percent", request.threshold_percent, 0, 100)
            threshold = request.threshold_percent
        replacement: int | Certificate = request.replacement_id
        if request.HasField("certificate"):
            kind = await self._store.kind_of(request.id)
            replacement = read(request.certificate, kind, field="replacement")
        elif not request.HasField("replacement_id"):
            raise InvalidInput("is required", field="replacement")
        rotation = await self._store.stage(request.id, replacement, threshold)
        await self._refresh()
        return pb.StageRotationResponse(rotation=_proto_of(rotation))

    @allows(Access.VIEWER)
    async def GetRotation(
        self, request: pb.GetRotationRequest, context: Context
    ) -> pb.GetRotationResponse:
        """Raises `CertificateNotFound`, `RotationNotFound`."""
        rotation = await self._store.rotation(request.id)
        return pb.GetRotationResponse(rotation=_proto_of(rotation))

    @allows(Access.VIEWER)
    async def ListRotationDevices(
        self, request: pb.ListRotationDevicesRequest, context: Context
    ) -> pb.ListRotationDevicesResponse:
        """Raises `InvalidInput`, `CertificateNotFound`, `RotationNotFound`."""
        if request.told not in NOTIFIED:
            raise InvalidInput("must be old, both or new", field="told")
        size = pages.page_size_of(request.page_size)
        rows = await self._store.devices_after(
            request.id, NOTIFIED[request.told], pages.after(request.cursor, int), size + 1
        )
        page, next_cursor = pages.cut(rows, size, lambda row: row[0])
        return pb.ListRotationDevicesResponse(
            device_uuids=[uuid for _, uuid in page], next_cursor=next_cursor
        )

    @allows(Access.OPERATOR)
    async def CutOverRotation(
        self, request: pb.CutOverRotationRequest, context: Context
    ) -> pb.CutOverRotationResponse:
        """Raises `CertificateNotFound`, `RotationNotFound`, `RotationTooEarly`."""
        row = await self._store.cut_over(request.id, is_forced=request.force)
        await self._refresh()
        return pb.CutOverRotationResponse(certificate=proto_of(row))

    @allows(Access.OPERATOR)
    async def CancelRotation(
        self, request: pb.CancelRotationRequest, context: Context
    ) -> pb.CancelRotationResponse:
        """Raises `CertificateNotFound`, `RotationNotFound`."""
        await self._store.cancel(request.id)
        await self._refresh()
        return pb.CancelRotationResponse()


def _proto_of(rotation: CertificateRotation) -> pb.Rotation:
    return pb.Rotation(
        certificate_id=rotation.certificate_id,
        replacement_id=rotation.replacement_id,
        began_at=timestamp_of(rotation.began_at),
        threshold_percent=rotation.threshold_percent,
        broker_ids=rotation.broker_ids,
        told=None if rotation.counts is None else pb.ToldCounts(**rotation.usage),
        too_early=rotation.too_early(datetime.now(UTC)),
        warnings=warnings(rotation.kind, rotation.replacement_pem),
    )
