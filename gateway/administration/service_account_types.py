"""A service account as people write and read it."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from mooring.registry.v1 import service_accounts_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.administration.fields import Id, Moment, moment_of, named, timestamp
from gateway.administration.listing import Page
from gateway.documentation import documented
from gateway.examples import ACCOUNT_ID, MOMENT

Filters = Annotated[
    list[Annotated[str, documented(minLength=1, description="65,535 bytes at most.")]],
    Meta(extra_json_schema={"maxItems": 64}),
]
BrokerIds = Annotated[
    list[Id],
    Meta(
        description="Only these brokers let it in. Null: all do.",
        extra_json_schema={"minItems": 1, "maxItems": 1000},
    ),
]


class ServiceAccountChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is to change; a field that is not named is left alone, null clears."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"subscribe": ["iot/device/#"], "broker_ids": None}

    description: Annotated[str, documented(maxLength=2000)] | UnsetType | None = UNSET
    publish: (
        Annotated[Filters, Meta(description="MQTT topic filters of what it may publish.")]
        | UnsetType
    ) = UNSET
    subscribe: (
        Annotated[
            Filters,
            Meta(description="Of what it may subscribe to, shared (`$share/…`) or not."),
        ]
        | UnsetType
    ) = UNSET
    broker_ids: BrokerIds | UnsetType | None = UNSET
    expires_at: (
        Annotated[Moment, Meta(description="One that has passed ends it now. Null: never.")]
        | UnsetType
        | None
    ) = UNSET
    is_active: Annotated[bool, Meta(description="False: nobody lets it in.")] | UnsetType = UNSET


class NewServiceAccount(ServiceAccountChange, kw_only=True, frozen=True):
    """A service account to be. `expires_at` has yet to come."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "username": "dashboard",
        "description": "what hangs in the hall",
        "publish": ["dashboard/status"],
        "subscribe": ["iot/device/+/telemetry/#"],
        "broker_ids": [1],
        "expires_at": "2099-12-31T23:59:59Z",
    }

    username: Annotated[
        str,
        documented(
            pattern=r"^[A-Za-z0-9._@-]{1,128}$",
            description="Stays as it is. Those that begin with `device_` are devices'.",
            examples=["bridge"],
        ),
    ]


class ServiceAccount(Struct, kw_only=True, frozen=True):
    """A service account as it is, without its password."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": ACCOUNT_ID,
        "username": "dashboard",
        "description": "what hangs in the hall",
        "publish": ["dashboard/status"],
        "subscribe": ["iot/device/+/telemetry/#"],
        "broker_ids": [1],
        "is_active": True,
        "expires_at": "2099-12-31T23:59:59Z",
        "revision": 1,
        "created_at": MOMENT,
        "updated_at": MOMENT,
    }

    id: str
    username: str
    description: str
    publish: list[str]
    subscribe: list[str]
    broker_ids: list[int] | None
    is_active: bool
    expires_at: datetime | None
    revision: int
    created_at: datetime | None
    updated_at: datetime | None


class PasswordedServiceAccount(ServiceAccount, kw_only=True, frozen=True):
    """`password` is what it connects with. It is shown here and never again."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        **ServiceAccount.EXAMPLE,
        "password": "qR8sT0uV2wX4yZ6aB8cD0eF2gH4iJ6kL8mN0oP2qR4s",
    }

    password: str


class ServiceAccountPage(Page[ServiceAccount], frozen=True):
    """Service accounts, in the order of their ids."""


def values_of(change: ServiceAccountChange) -> dict[str, Any]:
    """The named fields, as the proto has them: a list that may be absent is a message there."""
    values = named(change)
    values.pop("username", None)
    if "broker_ids" in values:
        ids = values.pop("broker_ids")
        values["brokers"] = None if ids is None else service_accounts_pb2.AccountBrokers(ids=ids)
    if "expires_at" in values:
        values["expires_at"] = timestamp("expires_at", values["expires_at"])
    return values


def account_columns(account: service_accounts_pb2.ServiceAccount) -> dict[str, Any]:
    """What people see of it, by name."""
    fields = account.fields
    return {
        "id": account.id,
        "username": account.username,
        "description": fields.description,
        "publish": list(fields.publish),
        "subscribe": list(fields.subscribe),
        "broker_ids": list(fields.brokers.ids) if fields.HasField("brokers") else None,
        "is_active": fields.is_active,
        "expires_at": moment_of(fields, "expires_at"),
        "revision": account.revision,
        "created_at": moment_of(account, "created_at"),
        "updated_at": moment_of(account, "updated_at"),
    }
