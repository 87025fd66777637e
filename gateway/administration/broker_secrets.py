"""The secrets with which a broker asks about clients: `/api/v1/brokers/{id}/secrets`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import Router, delete, get, post
from litestar.params import PathParameter
from mooring.registry.v1 import broker_secrets_pb2
from msgspec import Meta, Struct

from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import PathId, moment_of
from gateway.administration.listing import Page
from gateway.examples import MOMENT, SECRET_ID

SecretId = Annotated[str, PathParameter(description="The secret's id, which is not the secret.")]


class BrokerSecret(Struct, kw_only=True, frozen=True):
    """A secret's name and state, without the secret itself."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": SECRET_ID,
        "broker_id": 1,
        "prefix": "mbs_hJ2kL4",
        "created_at": MOMENT,
        "last_used_at": None,
    }

    id: str
    broker_id: int
    prefix: Annotated[
        str, Meta(description="The first characters of the secret, to recognise it by.")
    ]
    created_at: datetime | None
    last_used_at: datetime | None


class CreatedBrokerSecret(BrokerSecret, kw_only=True, frozen=True):
    """`secret` is what the broker sends. Only this answer contains it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        **BrokerSecret.EXAMPLE,
        "secret": "mbs_hJ2kL4mN6oP8qR0sT2uV4wX6yZ8aB0cD2eF4gH6iJ8k",
    }

    secret: str


class BrokerSecretPage(Page[BrokerSecret], frozen=True):
    """All secrets of a broker, the oldest first."""


def _json(secret: broker_secrets_pb2.BrokerSecret) -> BrokerSecret:
    return BrokerSecret(
        id=secret.id,
        broker_id=secret.broker_id,
        prefix=secret.prefix,
        created_at=moment_of(secret, "created_at"),
        last_used_at=moment_of(secret, "last_used_at"),
    )


@post(
    "/{broker_id:int}/secrets",
    access=Access.OPERATOR,
    action="broker_secret.create",
    summary="Make a secret for a broker",
    description="The answer contains the secret itself, which is stored nowhere. A broker can "
    "have up to five secrets, so that one can be replaced while the old and the new are "
    "both valid.",
    reasons=("BROKER_NOT_FOUND", "TOO_MANY_BROKER_SECRETS"),
)
async def create_broker_secret(request: CallerRequest, broker_id: PathId) -> CreatedBrokerSecret:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.broker_secrets.CreateBrokerSecret,
        broker_secrets_pb2.CreateBrokerSecretRequest(broker_id=broker_id),
    )
    made = _json(answer.broker_secret)
    return CreatedBrokerSecret(
        **{name: getattr(made, name) for name in made.__struct_fields__}, secret=answer.secret
    )


@get(
    "/{broker_id:int}/secrets",
    access=Access.VIEWER,
    summary="List a broker's secrets",
    reasons=("BROKER_NOT_FOUND",),
)
async def list_broker_secrets(request: CallerRequest, broker_id: PathId) -> BrokerSecretPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.broker_secrets.ListBrokerSecrets,
        broker_secrets_pb2.ListBrokerSecretsRequest(broker_id=broker_id),
    )
    return BrokerSecretPage([_json(secret) for secret in answer.broker_secrets], None)


@delete(
    "/{broker_id:int}/secrets/{secret_id:str}",
    access=Access.OPERATOR,
    action="broker_secret.delete",
    summary="Delete a broker's secret",
    description="Requests with this secret are refused from now on.",
    reasons=("BROKER_NOT_FOUND", "BROKER_SECRET_NOT_FOUND"),
)
async def delete_broker_secret(
    request: CallerRequest, broker_id: PathId, secret_id: SecretId
) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.services.broker_secrets.DeleteBrokerSecret,
        broker_secrets_pb2.DeleteBrokerSecretRequest(broker_id=broker_id, id=secret_id),
    )


ROUTES = Router(
    "/brokers",
    route_handlers=[create_broker_secret, list_broker_secrets, delete_broker_secret],
    tags=["brokers"],
)
