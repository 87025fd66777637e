"""gRPC: takes the reports of devices, and shows them."""

import time
from collections.abc import Mapping, Sequence
from functools import partial

from mooring.registry.v1 import reports_pb2 as pb
from mooring.registry.v1 import reports_pb2_grpc

from chassis import isolation
from chassis.coalescer import Coalescer
from chassis.database_failures import retried
from chassis.errors import InvalidInput, MooringError, as_value, to_item
from chassis.server import Context, deadline_of
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access, WithinFleets
from chassis.validation import IDENTIFIER
from registry_service.activity.recording import Activity
from registry_service.credentials import KeyRing
from registry_service.errors import DeviceNotFound
from registry_service.provisioning.authentication import authenticated
from registry_service.provisioning.guesses import Guesses
from registry_service.provisioning.records import Device
from registry_service.provisioning.servicer import DEVICES, MAX_ITEMS, REFUSED, split_by_call
from registry_service.provisioning.store import RegistrationStore
from registry_service.reports.report import Report, read_report
from registry_service.reports.store import ReportStore

Key = tuple[int, str]  # the id of a device, and the state
Messages = Sequence[pb.ConnectionReport]
Results = list[MooringError | None]  # None for a report that was taken


class ReportServicer(reports_pb2_grpc.ReportServiceServicer):
    """Concurrent calls share a statement."""

    def __init__(
        self,
        store: ReportStore,
        registered: RegistrationStore,
        ring: KeyRing,
        guesses: Guesses,
        activity: Activity,
    ) -> None:
        """`store` has the reports, `registered` the devices. Changes are recorded to `activity`."""
        self._store = store
        self._registered = registered
        self._ring = ring
        self._guesses = guesses
        self._activity = activity
        self._reporting = Coalescer[Messages, Results](
            self._take,
            name="reports",
            max_batch=MAX_ITEMS,
            max_waiting=20_000,
            spacing_s=0.002,
        )

    @allows(DEVICES)
    async def ReportConnections(
        self, request: pb.ReportConnectionsRequest, context: Context
    ) -> pb.ReportConnectionsResponse:
        """Each report gets its own outcome. Raises `InvalidInput`, `Overloaded`, `Unavailable`."""
        if len(request.reports) > MAX_ITEMS:
            raise InvalidInput(f"at most {MAX_ITEMS} at once", field="reports")
        response = pb.ReportConnectionsResponse()
        if not request.reports:
            return response
        results = await self._reporting.submit(
            request.reports,
            deadline=deadline_of(context),
            weight=len(request.reports),
            size=request.ByteSize(),
        )
        for error in results:
            if error is None:
                response.outcomes.add(taken=pb.ReportTaken())
                continue
            REFUSED.labels("reports", error.reason).inc()
            response.outcomes.add(error=to_item(error))
        return response

    @allows(WithinFleets(Access.VIEWER))
    async def GetDeviceReports(
        self, request: pb.GetDeviceReportsRequest, context: Context
    ) -> pb.GetDeviceReportsResponse:
        """Raises `DeviceNotFound`."""
        if not IDENTIFIER.fullmatch(request.uuid):
            raise DeviceNotFound("there is no such device")
        rows = await self._store.reports_of(request.uuid, isolation.fleets.get())
        return pb.GetDeviceReportsResponse(
            reports=[
                pb.DeviceReport(
                    state=row.state,
                    broker_id=row.broker_id or 0,
                    error=row.error,
                    generation=row.generation,
                    reported_at=timestamp_of(row.reported_at),
                )
                for row in rows
            ]
        )

    async def close(self) -> None:
        """Waits for calls under way."""
        await self._reporting.close()

    async def _take(self, calls: list[Messages], deadline: float) -> list[Results]:
        """The outcomes of each call's reports. The reads and the write have bounds of their own."""
        together = [message for call in calls for message in call]
        return split_by_call(await self._outcomes(together), calls)

    async def _outcomes(self, messages: Messages) -> Results:
        results: Results = [None] * len(messages)
        reports: dict[int, Report] = {}
        for index, message in enumerate(messages):
            try:
                reports[index] = read_report(message)
            except MooringError as error:
                results[index] = self._refused(error)
        uuids = {messages[index].uuid for index in reports}
        known = (await retried(partial(self._registered.known_of, (), uuids))).devices
        # Of equal keys, the last report counts.
        proved: dict[Key, tuple[pb.ConnectionReport, Report]] = {}
        for index, report in reports.items():
            message = messages[index]
            device = known.get(message.uuid)
            try:
                device = authenticated(message, device, self._ring, self._guesses)
                proved[device.id, report.state] = message, report
            except MooringError as error:
                results[index] = self._refused(error, device)
        if proved:
            await self._write(proved)
        return results

    async def _write(self, proved: Mapping[Key, tuple[pb.ConnectionReport, Report]]) -> None:
        """Writes the reports, and adds events for those that differ from the last ones."""
        reports = {key: report for key, (_, report) in proved.items()}
        for change in await retried(partial(self._store.note, reports)):
            message, _ = proved[change.device_id, change.state]
            self._activity.reported(
                message.uuid, message.source_address, change.state, change.broker_id
            )

    def _refused(self, error: MooringError, device: Device | None = None) -> MooringError:
        fleet_id = device.placement.fleet_id if device else ""
        self._activity.counts.refused(error.reason, fleet_id, time.time())
        return as_value(error)
