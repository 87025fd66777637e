"""MQTT users that are not devices: `/api/v1/service-accounts`."""

from typing import Annotated

from litestar import Response, Router, delete, get, patch, post
from litestar.params import JSONBody, PathParameter
from mooring.registry.v1 import service_accounts_pb2

from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import mask, present
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, searched
from gateway.administration.preconditions import (
    IF_REVISION,
    NOT_MODIFIED,
    IfNoneMatch,
    IfRevision,
    tagged,
    unless_known,
)
from gateway.administration.service_account_types import (
    NewServiceAccount,
    PasswordedServiceAccount,
    ServiceAccount,
    ServiceAccountChange,
    ServiceAccountPage,
    account_columns,
    values_of,
)
from gateway.bodies import StrictJson

AccountId = Annotated[str, PathParameter(description="The account's id.")]


@post(
    "/",
    access=Access.ADMIN,
    action="service_account.create",
    summary="Create a service account",
    description="The answer contains its password, which is stored nowhere.",
    dto=StrictJson[NewServiceAccount],
    reasons=("BROKER_UNKNOWN", "USERNAME_RESERVED", "USERNAME_TAKEN"),
)
async def create_service_account(
    request: CallerRequest, data: JSONBody[NewServiceAccount]
) -> Response[PasswordedServiceAccount]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.service_accounts.CreateServiceAccount,
        service_accounts_pb2.CreateServiceAccountRequest(
            username=data.username,
            fields=service_accounts_pb2.ServiceAccountFields(**present(values_of(data))),
        ),
    )
    account = answer.service_account
    made = PasswordedServiceAccount(**account_columns(account), password=answer.password)
    return tagged(made, account.revision)


@get(
    "/",
    access=Access.VIEWER,
    summary="List service accounts",
)
async def list_service_accounts(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    search: Annotated[
        str,
        searched(
            "whose username or description contains this, or whose id begins with it (four"
            " characters or more)"
        ),
    ] = "",
) -> ServiceAccountPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.service_accounts.ListServiceAccounts,
        service_accounts_pb2.ListServiceAccountsRequest(
            page_size=limit, cursor=cursor, search=search
        ),
    )
    return ServiceAccountPage(
        [ServiceAccount(**account_columns(account)) for account in answer.service_accounts],
        answer.next_cursor or None,
    )


@get(
    "/{account_id:str}",
    access=Access.VIEWER,
    summary="Get a service account",
    responses=NOT_MODIFIED,
    reasons=("SERVICE_ACCOUNT_NOT_FOUND",),
)
async def get_service_account(
    request: CallerRequest, account_id: AccountId, if_none_match: IfNoneMatch = None
) -> Response[ServiceAccount]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.service_accounts.GetServiceAccount,
        service_accounts_pb2.GetServiceAccountRequest(id=account_id),
    )
    account = ServiceAccount(**account_columns(answer.service_account))
    return unless_known(request, if_none_match, account, account.revision)


@patch(
    "/{account_id:str}",
    access=Access.ADMIN,
    action="service_account.update",
    summary="Change a service account",
    dto=StrictJson[ServiceAccountChange],
    dependencies=IF_REVISION,
    reasons=("SERVICE_ACCOUNT_NOT_FOUND", "BROKER_UNKNOWN"),
)
async def update_service_account(
    request: CallerRequest,
    account_id: AccountId,
    data: JSONBody[ServiceAccountChange],
    if_revision: IfRevision,
) -> Response[ServiceAccount]:
    caller = request.auth
    values = values_of(data)
    answer = await caller.ask_registry(
        caller.services.service_accounts.UpdateServiceAccount,
        service_accounts_pb2.UpdateServiceAccountRequest(
            id=account_id,
            fields=service_accounts_pb2.ServiceAccountFields(**present(values)),
            update_mask=mask(values),
            if_revision=if_revision,
        ),
    )
    account = ServiceAccount(**account_columns(answer.service_account))
    return tagged(account, account.revision)


@post(
    "/{account_id:str}/rotate",
    access=Access.ADMIN,
    action="service_account.rotate",
    status_code=200,
    summary="Give a service account a new password",
    description="The new password is valid at once, the old one no longer. The answer contains "
    "the new password, which is stored nowhere.",
    dependencies=IF_REVISION,
    reasons=("SERVICE_ACCOUNT_NOT_FOUND",),
)
async def rotate_service_account(
    request: CallerRequest, account_id: AccountId, if_revision: IfRevision
) -> Response[PasswordedServiceAccount]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.service_accounts.RotateServiceAccount,
        service_accounts_pb2.RotateServiceAccountRequest(id=account_id, if_revision=if_revision),
    )
    account = answer.service_account
    renewed = PasswordedServiceAccount(**account_columns(account), password=answer.password)
    return tagged(renewed, account.revision)


@delete(
    "/{account_id:str}",
    access=Access.ADMIN,
    action="service_account.delete",
    summary="Delete a service account",
    description="No broker admits it any more.",
    dependencies=IF_REVISION,
    reasons=("SERVICE_ACCOUNT_NOT_FOUND",),
)
async def delete_service_account(
    request: CallerRequest, account_id: AccountId, if_revision: IfRevision
) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.services.service_accounts.DeleteServiceAccount,
        service_accounts_pb2.DeleteServiceAccountRequest(id=account_id, if_revision=if_revision),
    )


ROUTES = Router(
    "/service-accounts",
    route_handlers=[
        create_service_account,
        list_service_accounts,
        get_service_account,
        update_service_account,
        rotate_service_account,
        delete_service_account,
    ],
    tags=["service accounts"],
)
