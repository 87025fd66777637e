"""gRPC: the revisions of a pool, and restoring one."""

import json
from itertools import pairwise

from mooring.broker.v1 import history_pb2, pool_history_pb2_grpc
from mooring.broker.v1 import pool_history_pb2 as pb

from broker_service.pools.database import Row
from broker_service.pools.differences import differences
from broker_service.pools.history.store import PoolHistoryStore
from broker_service.pools.servicer import proto_of
from broker_service.refreshing import Refresh
from chassis import pages
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access


class PoolHistoryServicer(pool_history_pb2_grpc.PoolHistoryServiceServicer):
    """A rollback takes effect in this replica before the caller gets its answer."""

    def __init__(self, store: PoolHistoryStore, refresh: Refresh) -> None:
        """`refresh` makes a change that was committed take effect in this process."""
        self._store = store
        self._refresh = refresh

    @allows(Access.VIEWER)
    async def ListPoolRevisions(
        self, request: pb.ListPoolRevisionsRequest, context: Context
    ) -> pb.ListPoolRevisionsResponse:
        """Lists the newest revision first. Raises `InvalidInput`, `PoolNotFound`."""
        size = pages.page_size_of(request.page_size)
        rows = await self._store.revisions_before(
            request.pool_id, pages.after(request.cursor, int), size + 1
        )
        page, next_cursor = pages.cut(rows, size, lambda row: row["revision"])
        # Each revision is compared with the one before it, even the last one of the page.
        revisions = [_revision(row, before) for row, before in pairwise([*rows, None]) if row]
        return pb.ListPoolRevisionsResponse(
            revisions=revisions[: len(page)], next_cursor=next_cursor
        )

    @allows(Access.VIEWER)
    async def GetPoolRevision(
        self, request: pb.GetPoolRevisionRequest, context: Context
    ) -> pb.GetPoolRevisionResponse:
        """Raises `RevisionNotFound`."""
        row = await self._store.revision(request.pool_id, request.revision)
        at = {"revision": row["revision"], "updated_at": row["changed_at"], "created_at": None}
        return pb.GetPoolRevisionResponse(pool=proto_of({**row["state"], **at}))

    @allows(Access.OPERATOR)
    async def RollBackPool(
        self, request: pb.RollBackPoolRequest, context: Context
    ) -> pb.RollBackPoolResponse:
        """Raises `InvalidInput`, `RevisionNotFound`, `PoolNameTaken`, `BrokerUnknown`,
        `LostRace`.
        """
        row = await self._store.roll_back(request.pool_id, request.revision, request.if_revision)
        await self._refresh()
        return pb.RollBackPoolResponse(pool=proto_of(row))


def _revision(row: Row, before: Row | None) -> pb.PoolRevision:
    changes = differences(None if before is None else before["state"], row["state"])
    return pb.PoolRevision(
        revision=row["revision"],
        kind=history_pb2.RevisionKind.Value(f"REVISION_KIND_{row['kind'].upper()}"),
        changed_at=timestamp_of(row["changed_at"]),
        changed_by=row["changed_by"],
        by_sql=row["by_sql"],
        changes={
            name: history_pb2.FieldChange(
                from_json=json.dumps(change.before), to_json=json.dumps(change.after)
            )
            for name, change in changes.items()
        },
    )
