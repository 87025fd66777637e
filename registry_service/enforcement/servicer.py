"""gRPC: how the brokers are that are driven."""

from typing import Any

import sqlalchemy as sa
from mooring.registry.v1 import enforcement_pb2 as pb
from mooring.registry.v1 import enforcement_pb2_grpc

from chassis.server import Context
from chassis.times import timestamp_of
from chassis.trust import Access
from registry_service.enforcement.store import EnforcementStore

NAME = "mooring.registry.v1.EnforcementService"
POLICIES = {f"/{NAME}/GetEnforcement": Access.VIEWER}


class EnforcementServicer(enforcement_pb2_grpc.EnforcementServiceServicer):
    """Says what the process that drives brokers has found and done."""

    def __init__(self, store: EnforcementStore) -> None:
        """`store` is what that process writes."""
        self._store = store

    async def GetEnforcement(
        self, request: pb.GetEnforcementRequest, context: Context
    ) -> pb.GetEnforcementResponse:
        """Raises `BrokerNotFound`."""
        row = await self._store.state(request.broker_id)
        return pb.GetEnforcementResponse(enforcement=_proto(row))


def _proto(row: sa.Row[Any]) -> pb.Enforcement:
    enforcement = pb.Enforcement(
        broker_id=row.broker_id,
        management=row.management,
        problem=_problem_of(row),
        pending_revocations=row.pending,
        revocations=pb.RevocationTimes(
            count=row.revocations,
            median_s=row.median_s,
            slowest_s=row.slowest_s,
            last_at=timestamp_of(row.last_asked_at),
            last_s=row.last_took_s,
        ),
    )
    # What was found while it was driven says nothing of a broker that is not.
    if row.management:
        enforcement.MergeFrom(
            pb.Enforcement(
                looked_at=timestamp_of(row.looked_at),
                in_step_at=timestamp_of(row.in_step_at),
                clients=row.clients,
            )
        )
    return enforcement


def _problem_of(row: sa.Row[Any]) -> str:
    if not row.management:
        return ""
    if not row.is_active:
        return "the broker is not active, and is not driven"
    if not row.is_anybody_driving:
        return "no process drives brokers now: registry_service.enforcement does not run"
    return row.problem or ""
