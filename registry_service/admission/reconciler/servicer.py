"""gRPC: the state of managed brokers, and whether they hold devices yet."""

from typing import Any

import sqlalchemy as sa
from mooring.registry.v1 import enforcement_pb2 as pb
from mooring.registry.v1 import enforcement_pb2_grpc

from chassis import pages
from chassis.errors import InvalidInput
from chassis.identities import Identity
from chassis.server import Context, deadline_of
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access, Services
from registry_service.admission.reconciler.held import Held
from registry_service.admission.reconciler.held_store import Awaited, Look
from registry_service.admission.reconciler.store import EnforcementStore

MAX_AWAITED = 1_000
MAX_INT32 = 2**31 - 1
MAX_WITHIN_MS = 1_000


class EnforcementServicer(enforcement_pb2_grpc.EnforcementServiceServicer):
    """Reads what the process that manages brokers has recorded."""

    def __init__(self, store: EnforcementStore, held: Held) -> None:
        """`store` holds the recorded state, and `held` waits for changes of it."""
        self._store = store
        self._held = held

    @allows(Access.VIEWER)
    async def GetEnforcement(
        self, request: pb.GetEnforcementRequest, context: Context
    ) -> pb.GetEnforcementResponse:
        """Raises `BrokerNotFound`."""
        row = await self._store.state(request.broker_id)
        enforcement = _proto(row)
        enforcement.revocations.CopyFrom(
            pb.RevocationTimes(
                count=row.revocations,
                median_s=row.median_s,
                slowest_s=row.slowest_s,
                last_at=timestamp_of(row.last_asked_at),
                last_s=row.last_took_s,
            )
        )
        return pb.GetEnforcementResponse(enforcement=enforcement)

    @allows(Access.VIEWER)
    async def ListEnforcement(
        self, request: pb.ListEnforcementRequest, context: Context
    ) -> pb.ListEnforcementResponse:
        """Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        rows = await self._store.states_after(
            pages.after(request.cursor, int, largest=MAX_INT32),
            size + 1,
            has_problem=request.has_problem if request.HasField("has_problem") else None,
        )
        page, next_cursor = pages.cut(rows, size, lambda row: row.broker_id)
        return pb.ListEnforcementResponse(enforcement=map(_proto, page), next_cursor=next_cursor)

    @allows(Services(Identity.GATEWAY))
    async def AwaitHeld(
        self, request: pb.AwaitHeldRequest, context: Context
    ) -> pb.AwaitHeldResponse:
        """Raises `InvalidInput`, `Overloaded`, `Unavailable`."""
        if len(request.clients) > MAX_AWAITED:
            raise InvalidInput(f"at most {MAX_AWAITED} at once", field="clients")
        if not request.clients:
            return pb.AwaitHeldResponse()
        awaited = [Awaited(one.broker_id, one.username, one.fingerprint) for one in request.clients]
        within_ms = min(max(request.within_ms, 0), MAX_WITHIN_MS)
        deadline = deadline_of(context)
        looks = await self._held.look(awaited, within_s=within_ms / 1_000, deadline=deadline)
        ages_s = {
            one.broker_id: look.progress_age_s
            for one, look in zip(awaited, looks, strict=True)
            if _state_of(look) == pb.HELD_STATE_PENDING and look.progress_age_s is not None
        }
        return pb.AwaitHeldResponse(
            states=[_state_of(look) for look in looks],
            progress=[
                pb.BrokerProgress(broker_id=broker_id, age_ms=max(0, int(age_s * 1_000)))
                for broker_id, age_s in ages_s.items()
            ],
        )


def _state_of(look: Look) -> pb.HeldState.ValueType:
    if look.is_held:
        return pb.HELD_STATE_HELD
    return pb.HELD_STATE_PENDING if look.is_driven else pb.HELD_STATE_HOPELESS


def _proto(row: sa.Row[Any]) -> pb.Enforcement:
    enforcement = pb.Enforcement(
        broker_id=row.broker_id,
        name=row.name,
        management=row.management,
        problem=_problem_of(row),
        pending_revocations=row.pending,
    )
    # The recorded state is out of date once the broker is not managed.
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
        return "the broker is not active, so Mooring does not manage it"
    if not row.is_anybody_driving:
        return "no process manages brokers now: no worker runs the loop enforcement"
    return row.problem or ""
