"""Reports of the gateway itself, which the registry writes: the gateway has no database."""

import asyncio
import contextlib

from google.protobuf.timestamp_pb2 import Timestamp
from mooring.registry.v1 import system_pb2 as pb

from chassis.errors import Unsupported
from chassis.reporting import WRITE_S, Report
from gateway.service_clients import ServiceClients


async def write_report(services: ServiceClients, report: Report) -> None:
    """Raises what the registry raises. A registry of an earlier release writes none."""
    started_at = Timestamp()
    started_at.FromDatetime(report.started_at)
    with contextlib.suppress(Unsupported):
        await services.registry.call(
            services.system.ReportProcess,
            pb.ReportProcessRequest(
                id=str(report.id),
                host=report.host,
                pid=report.pid,
                version=report.version,
                started_at=started_at,
                has_ended=report.has_ended,
                is_ready=report.is_ready,
                checks=report.checks,
                configuration=report.configuration,
            ),
            deadline=asyncio.get_running_loop().time() + WRITE_S,
        )
