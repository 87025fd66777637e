"""gRPC: service accounts."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from mooring.registry.v1 import service_accounts_pb2 as pb
from mooring.registry.v1 import service_accounts_pb2_grpc

from chassis import pages
from chassis.searching import start_of
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import moment_of, timestamp_of
from chassis.trust import Access
from registry_service.administration.service_accounts.fields import check_username, columns_of
from registry_service.administration.service_accounts.store import ServiceAccountStore
from registry_service.credentials import hash_of_password, new_password, new_salt
from registry_service.errors import ServiceAccountNotFound


class ServiceAccountServicer(service_accounts_pb2_grpc.ServiceAccountServiceServicer):
    """Only a hash of a password is stored."""

    def __init__(self, store: ServiceAccountStore) -> None:
        """`store` holds the accounts."""
        self._store = store

    @allows(Access.ADMIN)
    async def CreateServiceAccount(
        self, request: pb.CreateServiceAccountRequest, context: Context
    ) -> pb.CreateServiceAccountResponse:
        """Raises `InvalidInput`, `UsernameReserved`, `UsernameTaken`, `BrokerUnknown`."""
        check_username(request.username)
        fields = request.fields
        moment_of(fields, "expires_at", is_future=True)
        columns = columns_of(fields, [field.name for field, _ in fields.ListFields()])
        password, kept = _new_password()
        row = await self._store.create(request.username, columns, kept)
        return pb.CreateServiceAccountResponse(service_account=_proto(row), password=password)

    @allows(Access.VIEWER)
    async def GetServiceAccount(
        self, request: pb.GetServiceAccountRequest, context: Context
    ) -> pb.GetServiceAccountResponse:
        """Raises `ServiceAccountNotFound`."""
        row = await self._store.account(_existing(request.id))
        return pb.GetServiceAccountResponse(service_account=_proto(row))

    @allows(Access.VIEWER)
    async def ListServiceAccounts(
        self, request: pb.ListServiceAccountsRequest, context: Context
    ) -> pb.ListServiceAccountsResponse:
        """Lists accounts in the order of their ids. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        start = start_of(request.search, request.cursor, UUID)
        rows = await self._store.accounts_from(start, size + 1)
        page, next_cursor = pages.cut(rows, size, lambda row: start.place_of(row.rank, row.id))
        return pb.ListServiceAccountsResponse(
            service_accounts=map(_proto, page), next_cursor=next_cursor
        )

    @allows(Access.ADMIN)
    async def UpdateServiceAccount(
        self, request: pb.UpdateServiceAccountRequest, context: Context
    ) -> pb.UpdateServiceAccountResponse:
        """Raises `InvalidInput`, `ServiceAccountNotFound`, `BrokerUnknown`, `LostRace`."""
        account_id = _existing(request.id)
        columns = columns_of(request.fields, request.update_mask.paths)
        row = await self._store.update(account_id, columns, request.if_revision)
        return pb.UpdateServiceAccountResponse(service_account=_proto(row))

    @allows(Access.ADMIN)
    async def RotateServiceAccount(
        self, request: pb.RotateServiceAccountRequest, context: Context
    ) -> pb.RotateServiceAccountResponse:
        """Raises `ServiceAccountNotFound`, `LostRace`."""
        account_id = _existing(request.id)
        password, kept = _new_password()
        row = await self._store.rotate(account_id, kept, request.if_revision)
        return pb.RotateServiceAccountResponse(service_account=_proto(row), password=password)

    @allows(Access.ADMIN)
    async def DeleteServiceAccount(
        self, request: pb.DeleteServiceAccountRequest, context: Context
    ) -> pb.DeleteServiceAccountResponse:
        """Raises `ServiceAccountNotFound`, `LostRace`."""
        await self._store.delete(_existing(request.id), request.if_revision)
        return pb.DeleteServiceAccountResponse()


def _new_password() -> tuple[str, dict[str, str]]:
    """A password, and the columns with its hash."""
    password, salt = new_password(), new_salt()
    kept = {"password_hash": hash_of_password(salt, password), "password_salt": salt}
    return password, kept


def _existing(account_id: str) -> UUID:
    """The id. Raises `ServiceAccountNotFound`, without a query, if no account can have it."""
    try:
        return UUID(account_id)
    except ValueError:
        raise ServiceAccountNotFound("there is no such service account") from None


def _proto(row: sa.Row[Any]) -> pb.ServiceAccount:
    return pb.ServiceAccount(
        id=str(row.id),
        username=row.username,
        fields=pb.ServiceAccountFields(
            description=row.description,
            publish=row.publish,
            subscribe=row.subscribe,
            brokers=None if row.broker_ids is None else pb.AccountBrokers(ids=row.broker_ids),
            expires_at=timestamp_of(row.expires_at),
            is_active=row.is_active,
        ),
        revision=row.revision,
        created_at=timestamp_of(row.created_at),
        updated_at=timestamp_of(row.updated_at),
    )
