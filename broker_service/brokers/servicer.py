"""gRPC: the brokers' settings and certificates."""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import sqlalchemy as sa
from mooring.broker.v1 import brokers_pb2 as pb
from mooring.broker.v1 import brokers_pb2_grpc
from mooring.broker.v1.certificates_pb2 import CertificateWarning

from broker_service.brokers.store import BrokerStore, Filter
from broker_service.brokers.testing.trials import Trials
from broker_service.certificates.reading import CA, CLIENT, Certificate, read_ca
from broker_service.certificates.servicer import warnings
from broker_service.errors import BrokerNameTaken
from broker_service.refreshing import Refresh
from broker_service.settings import (
    MAX_INT32,
    TLS_OF_PROTOCOL,
    Settings,
    check,
    check_labels,
    check_login,
    check_password,
)
from chassis import isolation, pages
from chassis.errors import InvalidInput, MooringError, to_item
from chassis.searching import start_of
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access, WithinFleets
from chassis.validation import check_text

MAX_IMPORTED = 100

COLUMNS = tuple(field.name for field in fields(Settings))
CERTIFICATES = ("ca_certificate_id", "client_certificate_id")
# Fields that are checked separately from the settings.
APART = ("ca_cert", "password", *CERTIFICATES)
# Tokens that are restricted to fleets cannot read how a broker is managed.
CONTROL = frozenset({"username", "management_url"})
REQUIRED = ("name", "host", "port")
# The default values of optional fields.
DEFAULTS = asdict(Settings(name="", host="", port=0))


class BrokerServicer(brokers_pb2_grpc.BrokerServiceServicer):
    """A change takes effect in this replica before the caller gets its answer."""

    def __init__(self, store: BrokerStore, refresh: Refresh, trials: Trials) -> None:
        """`refresh` makes a change that was committed take effect in this process.

        Other replicas get an announcement from the database. `trials` tests brokers.
        """
        self._store = store
        self._refresh = refresh
        self._trials = trials

    @allows(Access.OPERATOR)
    async def CreateBroker(
        self, request: pb.CreateBrokerRequest, context: Context
    ) -> pb.CreateBrokerResponse:
        """Raises `InvalidInput`, `BrokerNameTaken`, `CertificateUnknown`, `BrokerUnknown`."""
        row = await self._store.create(*_new(request.fields), validate_only=request.validate_only)
        if not request.validate_only:
            await self._refresh()
        return pb.CreateBrokerResponse(broker=proto_of(row))

    @allows(WithinFleets(Access.VIEWER))
    async def GetBroker(
        self, request: pb.GetBrokerRequest, context: Context
    ) -> pb.GetBrokerResponse:
        """Raises `BrokerNotFound`."""
        row = await self._store.broker(request.id, isolation.fleets.get())
        return pb.GetBrokerResponse(broker=proto_of(row))

    @allows(WithinFleets(Access.VIEWER))
    async def ListBrokers(
        self, request: pb.ListBrokersRequest, context: Context
    ) -> pb.ListBrokersResponse:
        """Lists brokers in the order of their ids. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        start = start_of(request.search, request.cursor, int, largest=MAX_INT32)
        rows = await self._store.brokers_from(
            start, size + 1, _filter(request), isolation.fleets.get()
        )
        page, next_cursor = pages.cut(
            rows, size, lambda row: start.place_of(row["rank"], row["id"])
        )
        return pb.ListBrokersResponse(brokers=map(proto_of, page), next_cursor=next_cursor)

    @allows(Access.OPERATOR)
    async def UpdateBroker(
        self, request: pb.UpdateBrokerRequest, context: Context
    ) -> pb.UpdateBrokerResponse:
        """Raises `InvalidInput`, `BrokerNotFound`, `BrokerNameTaken`, `BrokerIsDefault`,
        `CertificateUnknown`, `BrokerUnknown`, `LostRace`.
        """
        row = await self._store.update(
            request.id,
            _decision(request.fields, request.update_mask.paths),
            request.if_revision,
            validate_only=request.validate_only,
        )
        if not request.validate_only:
            await self._refresh()
        return pb.UpdateBrokerResponse(broker=proto_of(row))

    @allows(Access.OPERATOR)
    async def DeleteBroker(
        self, request: pb.DeleteBrokerRequest, context: Context
    ) -> pb.DeleteBrokerResponse:
        """Raises `BrokerNotFound`, `BrokerInUse`, `BrokerIsDefault`, `LostRace`."""
        await self._store.delete(request.id, request.if_revision)
        await self._refresh()
        return pb.DeleteBrokerResponse()

    @allows(Access.OPERATOR)
    async def SetDefaultBroker(
        self, request: pb.SetDefaultBrokerRequest, context: Context
    ) -> pb.SetDefaultBrokerResponse:
        """Raises `BrokerNotFound`, `BrokerInactive`, `LostRace`."""
        row = await self._store.set_default(request.id, request.if_revision)
        await self._refresh()
        return pb.SetDefaultBrokerResponse(broker=proto_of(row))

    @allows(Access.OPERATOR)
    async def ImportBrokers(
        self, request: pb.ImportBrokersRequest, context: Context
    ) -> pb.ImportBrokersResponse:
        """Raises `InvalidInput` for too many at once."""
        if len(request.brokers) > MAX_IMPORTED:
            raise InvalidInput(f"at most {MAX_IMPORTED} at once", field="brokers")
        taken = await self._store.names_among({given.name for given in request.brokers})
        response = pb.ImportBrokersResponse()
        for given in request.brokers:
            try:
                columns, ca_cert, password = _new(given)
                is_new = given.name not in taken
                if is_new and not request.dry_run:
                    found = _warnings_of(await self._store.create(columns, ca_cert, password))
                else:
                    found = _warnings_of(
                        columns | {"ca_cert": ca_cert.pem if ca_cert and is_new else None}
                    )
                taken.add(given.name)
                response.results.add(created=is_new, warnings=found)
            except BrokerNameTaken:
                response.results.add(created=False)
            except MooringError as error:
                response.results.add(error=to_item(error))
        if any(result.created for result in response.results) and not request.dry_run:
            await self._refresh()
        return response

    @allows(Access.OPERATOR)
    async def TestBroker(
        self, request: pb.TestBrokerRequest, context: Context
    ) -> AsyncIterator[pb.TestBrokerResponse]:
        """Raises the errors of creating or changing such a broker, and `TestUnderWay`."""
        # A name says nothing about a connection, and may be one that another broker has.
        if request.id:
            names = [name for name in request.update_mask.paths if name != "name"]
            decide = _decision(request.fields, names)
            row = await self._store.update(request.id, decide, validate_only=True)
        else:
            request.fields.name = f"test {secrets.token_hex(8)}"
            row = await self._store.create(*_new(request.fields), validate_only=True)
        async for outcome in self._trials.run(row):
            yield pb.TestBrokerResponse(
                step=pb.BrokerTestStep.Value(f"BROKER_TEST_STEP_{outcome.step.name}"),
                state=pb.BrokerTestState.Value(f"BROKER_TEST_STATE_{outcome.state.name}"),
                reason=outcome.reason,
                detail=outcome.detail,
                seconds=outcome.seconds,
            )


def _new(given: pb.BrokerFields) -> tuple[dict[str, Any], Certificate | None, str | None]:
    """Columns, CA and password of a new broker. Raises `InvalidInput`."""
    named = _named(given, [field.name for field, _ in given.ListFields()])
    for field in REQUIRED:
        if field not in named:
            raise InvalidInput("is required", field=field)
    _check_one_ca(named)
    ca_pem, password = named.pop("ca_cert", None), named.pop("password", None)
    certificates = {name: named.pop(name) for name in CERTIFICATES if name in named}
    settings = Settings(**named)
    check(settings)
    check_login(settings, has_password=password is not None)
    return columns_of(settings) | certificates, _ca_of(ca_pem), password


def _decision(
    fields: pb.BrokerFields, names: Sequence[str]
) -> Callable[[sa.RowMapping], dict[str, Any]]:
    """A function that gets a row, and returns the columns that a change of these fields changes.
    Both raise `InvalidInput`.
    """

    def decide(row: sa.RowMapping) -> dict[str, Any]:
        before = Settings(**{name: row[name] for name in COLUMNS})
        settings = replace(before, **changes)
        separate = _changed(given_separate, row)
        # A value that does not change is not checked, because it may have been set under other
        # rules.
        follows = settings.use_tls is None
        same = replace(settings, use_tls=before.use_tls) if follows else settings
        if same == before and not separate:
            return {}
        check(settings, before)
        had_password = row["password_encrypted"] is not None
        has_password = separate["password"] is not None if "password" in separate else had_password
        check_login(settings, has_password=has_password, before=before, had_password=had_password)
        columns = columns_of(settings)
        return separate | {name: columns[name] for name in changes}

    changes = _named(fields, names)
    given_separate = {name: changes.pop(name) for name in APART if name in changes}
    if "protocol" in changes and "use_tls" not in changes:
        changes["use_tls"] = None
    return decide


def _named(given: pb.BrokerFields, names: Any) -> dict[str, Any]:
    """The values of the named fields; a named field that is not set gets its default."""
    values: dict[str, Any] = {}
    for name in names:
        if name not in (*APART, *COLUMNS):
            raise InvalidInput("names an unknown field of a broker", field="update_mask")
        if given.HasField(name):
            values[name] = dict(given.labels.values) if name == "labels" else getattr(given, name)
            if name == "password":
                check_password(given.password)
        elif name in REQUIRED:
            raise InvalidInput("cannot be taken away", field=name)
        else:
            values[name] = DEFAULTS.get(name)
    return values


def _changed(given: Mapping[str, Any], row: Mapping[Any, Any]) -> dict[str, Any]:
    """The fields of `APART` that differ from the row's, with the CA bundle parsed. Raises
    `InvalidInput`.
    """
    changed = {
        name: given[name] for name in CERTIFICATES if given.get(name, row[name]) != row[name]
    }
    if "password" in given:
        changed["password"] = given["password"]
    if (given.get("ca_cert", row["ca_cert"]) or None) != row["ca_cert"]:
        changed["ca_cert"] = _ca_of(given["ca_cert"])
    _check_one_ca(changed)
    return changed


def _ca_of(pem: str | None) -> Certificate | None:
    return read_ca(pem, field="ca_cert") if pem else None


def _check_one_ca(given: Mapping[str, Any]) -> None:
    if {"ca_cert", "ca_certificate_id"} <= given.keys():
        raise InvalidInput("cannot be combined with ca_cert", field="ca_certificate_id")


def _filter(request: pb.ListBrokersRequest) -> Filter:
    """Raises `InvalidInput`."""
    asked = {
        name: getattr(request, name)
        for name in ("is_active", "is_default", "region", "protocol", "certificate_id")
        if request.HasField(name)
    }
    check_text("region", request.region, longest=64)
    check_text("name", request.name, longest=255)
    check_labels(request.labels, field="label")
    if request.HasField("protocol") and request.protocol not in TLS_OF_PROTOCOL:
        raise InvalidInput("must be mqtt, mqtts, ws or wss", field="protocol")
    if len(request.ids) > pages.MAX_PAGE_SIZE:
        raise InvalidInput(f"at most {pages.MAX_PAGE_SIZE} at once", field="id")
    return Filter(**asked, labels=dict(request.labels), name=request.name, ids=list(request.ids))


def columns_of(settings: Settings) -> dict[str, Any]:
    """The settings as columns of the table."""
    return {**asdict(settings), "use_tls": TLS_OF_PROTOCOL[settings.protocol]}


def proto_of(row: Mapping[Any, Any]) -> pb.Broker:
    """The message for a row of the table with `ca_cert`. It lacks the fields that the actor may not
    read.
    """
    hidden = frozenset() if isolation.fleets.get() is None else CONTROL
    values = {name: row[name] for name in COLUMNS if name != "labels" and name not in hidden}
    return pb.Broker(
        id=row["id"],
        fields=pb.BrokerFields(
            **values, labels=pb.Labels(values=row["labels"]), ca_cert=row["ca_cert"]
        ),
        is_default=row["is_default"],
        ca_certificate_id=row["ca_certificate_id"],
        client_certificate_id=row["client_certificate_id"],
        has_password=row["password_encrypted"] is not None,
        revision=row["revision"],
        created_at=timestamp_of(row["created_at"]),
        updated_at=timestamp_of(row["updated_at"]),
        warnings=_warnings_of(row),
    )


def _warnings_of(row: Mapping[Any, Any]) -> list[CertificateWarning]:
    ca_cert, client_cert = row["ca_cert"], row.get("client_cert")
    host = row["host"] if row["use_tls"] else None
    return [
        *(warnings(CA, ca_cert, host=host) if ca_cert else ()),
        *(warnings(CLIENT, client_cert) if client_cert else ()),
    ]
