"""A device's report as JSON: whether it reached its broker."""

from typing import Annotated, Any, ClassVar

import msgspec
from mooring.registry.v1 import reports_pb2
from msgspec import Struct

from chassis.errors import MooringError, from_item
from gateway.documentation import documented


class ConnectionReport(Struct, kw_only=True, frozen=True):
    """What a device says of a broker. The gateway checks types, and the registry checks values.

    Null means the same as a missing field.
    """

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "generation": "5c1f0a3b9d2e4f60",
        "broker": "mqtts://mqtt.example.com:8883",
        "state": "failed",
        "error": "connection refused",
    }

    broker: Annotated[
        str,
        documented(
            minLength=1,
            maxLength=512,
            description="The URL that the device used: `mqtt.broker` of its answer.",
        ),
    ]
    state: Annotated[str, documented(enum=["connected", "failed"])]
    error: Annotated[str, documented(maxLength=256, description="Why it failed.")] | None = None
    generation: (
        Annotated[str, documented(maxLength=64, description="`mqtt.generation` of its answer.")]
        | None
    ) = None


class ReportTaken(Struct, frozen=True):
    """The report was taken."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"status": "ok"}

    status: str = "ok"


DECODER = msgspec.json.Decoder(ConnectionReport)
TAKEN = msgspec.json.encode(ReportTaken())


def report_of(
    uuid: str, device_api_key: str, address: str, report: ConnectionReport
) -> reports_pb2.ConnectionReport:
    """The report as a message. `address` is the device's address, or empty."""
    return reports_pb2.ConnectionReport(
        uuid=uuid,
        device_api_key=device_api_key,
        source_address=address,
        state=report.state,
        broker=report.broker,
        error=report.error or "",
        generation=report.generation or "",
    )


def outcomes(response: reports_pb2.ReportConnectionsResponse) -> list[MooringError | None]:
    """An error, or None, for each report, in order."""
    return [
        from_item(outcome.error) if outcome.HasField("error") else None
        for outcome in response.outcomes
    ]
