"""gRPC: the revisions of a broker, and restoring one."""

import json
from datetime import datetime
from itertools import pairwise
from typing import Any

from mooring.broker.v1 import history_pb2 as pb
from mooring.broker.v1 import history_pb2_grpc

from broker_service.brokers.history.store import HistoryStore, State, state_of
from broker_service.brokers.servicer import COLUMNS, proto_of
from broker_service.database import Row
from broker_service.differences import Change, differences
from broker_service.refreshing import Refresh
from broker_service.settings import Settings, check, check_login, check_password
from chassis import pages
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access


class BrokerHistoryServicer(history_pb2_grpc.BrokerHistoryServiceServicer):
    """A rollback takes effect in this replica before the caller gets its answer."""

    def __init__(self, store: HistoryStore, refresh: Refresh) -> None:
        """`refresh` makes a change that was committed take effect in this process."""
        self._store = store
        self._refresh = refresh

    @allows(Access.VIEWER)
    async def ListBrokerRevisions(
        self, request: pb.ListBrokerRevisionsRequest, context: Context
    ) -> pb.ListBrokerRevisionsResponse:
        """Lists the newest revision first. Raises `InvalidInput`, `BrokerNotFound`."""
        size = pages.page_size_of(request.page_size)
        rows = await self._store.revisions_before(
            request.broker_id, pages.after(request.cursor, int), size + 1
        )
        page, next_cursor = pages.cut(rows, size, lambda row: row["revision"])
        # Each revision is compared with the one before it, even the last one of the page.
        revisions = [_revision(row, before) for row, before in pairwise([*rows, None]) if row]
        return pb.ListBrokerRevisionsResponse(
            revisions=revisions[: len(page)], next_cursor=next_cursor
        )

    @allows(Access.VIEWER)
    async def GetBrokerRevision(
        self, request: pb.GetBrokerRevisionRequest, context: Context
    ) -> pb.GetBrokerRevisionResponse:
        """Raises `RevisionNotFound`."""
        state = await self._store.state_at(request.broker_id, request.revision)
        return pb.GetBrokerRevisionResponse(broker=proto_of(_as_row(state)))

    @allows(Access.OPERATOR)
    async def RollBackBroker(
        self, request: pb.RollBackBrokerRequest, context: Context
    ) -> pb.RollBackBrokerResponse:
        """Raises `InvalidInput`, `RevisionNotFound`, `PasswordKeyGone`, `BrokerNameTaken`,
        `BrokerIsDefault`, `BrokerUnknown`, `LostRace`.
        """
        password = request.password if request.HasField("password") else None
        if password is not None:
            check_password(password)
        row = await self._store.roll_back(
            request.broker_id, request.revision, _check, request.if_revision, password
        )
        await self._refresh()
        return pb.RollBackBrokerResponse(broker=proto_of(row))


def _check(state: State, before: State | None) -> None:
    """Raises `InvalidInput` for values that were set by SQL and that the API does not accept, and
    if a managed broker would have no username or password. Values that are the same in `before` are
    not checked.
    """
    now = None if before is None else _settings(before)
    check(_settings(state), now)
    check_login(
        _settings(state),
        has_password=state["password_encrypted"] is not None,
        before=now,
        had_password=before is not None and before["password_encrypted"] is not None,
    )


def _settings(state: State) -> Settings:
    return Settings(**{name: state[name] for name in COLUMNS if name in state})


def _as_row(state: State) -> dict[str, Any]:
    """The state as a row: with columns that were added later, and with times instead of texts."""
    later: dict[str, Any] = {
        "labels": {},
        "management": "",
        "management_url": "",
        "backup_broker_id": None,
        "capacity": None,
    }
    times = {name: datetime.fromisoformat(state[name]) for name in ("created_at", "updated_at")}
    return {**later, **state, **times}


def _revision(row: Row, before: Row | None) -> pb.BrokerRevision:
    changes = differences(
        None if before is None or before["state"] is None else state_of(before),
        None if row["state"] is None else state_of(row),
    )
    return pb.BrokerRevision(
        revision=row["revision"],
        kind=pb.RevisionKind.Value(f"REVISION_KIND_{row['kind'].upper()}"),
        changed_at=timestamp_of(row["changed_at"]),
        changed_by=row["changed_by"],
        by_sql=row["by_sql"],
        changes={name: _change(change) for name, change in changes.items()},
    )


def _change(change: Change) -> pb.FieldChange:
    if change.is_secret:
        return pb.FieldChange(is_secret=True)
    return pb.FieldChange(from_json=json.dumps(change.before), to_json=json.dumps(change.after))
