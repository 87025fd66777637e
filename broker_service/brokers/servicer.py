"""gRPC: the brokers' settings and certificates."""

from dataclasses import asdict, fields, replace
from typing import Any

import sqlalchemy as sa
from mooring.broker.v1 import brokers_pb2 as pb
from mooring.broker.v1 import brokers_pb2_grpc

from broker_service.brokers.certificates import read_ca
from broker_service.brokers.settings import MAX_INT32, TLS_OF_PROTOCOL, Settings, check
from broker_service.brokers.store import BrokerStore
from broker_service.placements.snapshot import SnapshotKeeper
from chassis import pages
from chassis.errors import InvalidInput
from chassis.server import Context
from chassis.times import timestamp_of
from chassis.trust import Access

NAME = "mooring.broker.v1.BrokerService"
POLICIES = {
    f"/{NAME}/CreateBroker": Access.OPERATOR,
    f"/{NAME}/GetBroker": Access.VIEWER,
    f"/{NAME}/ListBrokers": Access.VIEWER,
    f"/{NAME}/UpdateBroker": Access.OPERATOR,
    f"/{NAME}/DeleteBroker": Access.OPERATOR,
    f"/{NAME}/SetDefaultBroker": Access.OPERATOR,
}

COLUMNS = tuple(field.name for field in fields(Settings))
REQUIRED = ("name", "host", "port")
DEFAULTS = {field.name: field.default for field in fields(Settings) if field.name not in REQUIRED}


class BrokerServicer(brokers_pb2_grpc.BrokerServiceServicer):
    """A change is what this replica answers with before the caller hears of it."""

    def __init__(self, store: BrokerStore, snapshots: SnapshotKeeper) -> None:
        """`snapshots` is told of every change; the other replicas hear of it from the database."""
        self._store = store
        self._snapshots = snapshots

    async def CreateBroker(
        self, request: pb.CreateBrokerRequest, context: Context
    ) -> pb.CreateBrokerResponse:
        """Raises `InvalidInput`, `BrokerNameTaken`."""
        named = _named(request.fields, [field.name for field, _ in request.fields.ListFields()])
        for field in REQUIRED:
            if field not in named:
                raise InvalidInput("is required", field=field)
        ca_pem = named.pop("ca_cert", None)
        settings = Settings(**named)
        check(settings)
        ca = read_ca(ca_pem) if ca_pem else None
        row = await self._store.create(_columns(settings), ca)
        await self._snapshots.refresh()
        return pb.CreateBrokerResponse(broker=_proto(row))

    async def GetBroker(
        self, request: pb.GetBrokerRequest, context: Context
    ) -> pb.GetBrokerResponse:
        """Raises `BrokerNotFound`."""
        return pb.GetBrokerResponse(broker=_proto(await self._store.broker(request.id)))

    async def ListBrokers(
        self, request: pb.ListBrokersRequest, context: Context
    ) -> pb.ListBrokersResponse:
        """In the order of their ids. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        rows = await self._store.brokers_after(
            pages.after(request.cursor, int, largest=MAX_INT32), size + 1
        )
        page, next_cursor = pages.cut(rows, size, lambda row: row["id"])
        return pb.ListBrokersResponse(brokers=map(_proto, page), next_cursor=next_cursor)

    async def UpdateBroker(
        self, request: pb.UpdateBrokerRequest, context: Context
    ) -> pb.UpdateBrokerResponse:
        """Raises `InvalidInput`, `BrokerNotFound`, `BrokerNameTaken`, `BrokerIsDefault`."""

        def decide(row: sa.RowMapping) -> dict[str, Any]:
            settings = replace(Settings(**{name: row[name] for name in COLUMNS}), **changes)
            check(settings)
            columns = _columns(settings)
            return certificate | {name: columns[name] for name in changes}

        changes = _named(request.fields, request.update_mask.paths)
        certificate: dict[str, Any] = {}
        if "ca_cert" in changes:
            ca_pem = changes.pop("ca_cert")
            certificate["ca_cert"] = read_ca(ca_pem) if ca_pem else None
        if "protocol" in changes and "use_tls" not in changes:
            changes["use_tls"] = None
        row = await self._store.update(request.id, decide)
        await self._snapshots.refresh()
        return pb.UpdateBrokerResponse(broker=_proto(row))

    async def DeleteBroker(
        self, request: pb.DeleteBrokerRequest, context: Context
    ) -> pb.DeleteBrokerResponse:
        """Raises `BrokerNotFound`, `BrokerInUse`, `BrokerIsDefault`."""
        await self._store.delete(request.id)
        await self._snapshots.refresh()
        return pb.DeleteBrokerResponse()

    async def SetDefaultBroker(
        self, request: pb.SetDefaultBrokerRequest, context: Context
    ) -> pb.SetDefaultBrokerResponse:
        """Raises `BrokerNotFound`, `BrokerInactive`."""
        row = await self._store.set_default(request.id)
        await self._snapshots.refresh()
        return pb.SetDefaultBrokerResponse(broker=_proto(row))


def _named(given: pb.BrokerFields, names: Any) -> dict[str, Any]:
    """The named fields' values; one that is named and not set goes back to its default."""
    values: dict[str, Any] = {}
    for name in names:
        if name != "ca_cert" and name not in COLUMNS:
            raise InvalidInput("names what is not a field of a broker", field="update_mask")
        if given.HasField(name):
            values[name] = getattr(given, name)
        elif name in REQUIRED:
            raise InvalidInput("cannot be taken away", field=name)
        else:
            values[name] = DEFAULTS.get(name)
    return values


def _columns(settings: Settings) -> dict[str, Any]:
    return {**asdict(settings), "use_tls": TLS_OF_PROTOCOL[settings.protocol]}


def _proto(row: sa.RowMapping) -> pb.Broker:
    return pb.Broker(
        id=row["id"],
        fields=pb.BrokerFields(**{name: row[name] for name in COLUMNS}, ca_cert=row["ca_cert"]),
        is_default=row["is_default"],
        ca_certificate_id=row["ca_certificate_id"],
        client_certificate_id=row["client_certificate_id"],
        revision=row["revision"],
        created_at=timestamp_of(row["created_at"]),
        updated_at=timestamp_of(row["updated_at"]),
    )
