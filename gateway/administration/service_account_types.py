"""A service account in JSON."""

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
        description="Only these brokers admit it. Null: all brokers do.",
        extra_json_schema={"minItems": 1, "maxItems": 1000},
    ),
]


class ServiceAccountChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The fields to change; a field that is left out keeps its value, null clears it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"subscribe": ["iot/device/#"], "broker_ids": None}

    description: Annotated[str, documented(maxLength=2000)] | UnsetType | None = UNSET
    publish: (
        Annotated[Filters, Meta(description="MQTT topic filters to which it may publish.")]
        | UnsetType
    ) = UNSET
    subscribe: (
        Annotated[
            Filters,
            Meta(
                description="MQTT topic filters to which it may subscribe, shared (`$share/…`) "
                "or not."
            ),
        ]
        | UnsetType
    ) = UNSET
    broker_ids: BrokerIds | UnsetType | None = UNSET
    expires_at: (
        Annotated[Moment, Meta(description="A time in the past ends the account now. Null: never.")]
        | UnsetType
        | None
    ) = UNSET
    is_active: Annotated[bool, Meta(description="False: no broker admits it.")] | UnsetType = UNSET


class NewServiceAccount(ServiceAccountChange, kw_only=True, frozen=True):
    """A new service account. `expires_at` must be in the future."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "username": "dashboard",
        "description": "the screens in the hall",
        "publish": ["dashboard/status"],
        "subscribe": ["iot/device/+/telemetry/#"],
        "broker_ids": [1],
        "expires_at": "2099-12-31T23:59:59Z",
    }

    username: Annotated[
        str,
        documented(
            pattern=r"^[A-Za-z0-9._@-]{1,128}$",
            description="Cannot change. Names that begin with `device_` are reserved for devices.",
            examples=["bridge"],
        ),
    ]


class ServiceAccount(Struct, kw_only=True, frozen=True):
    """A service account, without its password."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": ACCOUNT_ID,
        "username": "dashboard",
        "description": "the screens in the hall",
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
    """`password` is what it connects with. Only this answer contains it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        **ServiceAccount.EXAMPLE,
        "password": "qR8sT0uV2wX4yZ6aB8cD0eF2gH4iJ6kL8mN0oP2qR4s",
    }

    password: str


class ServiceAccountPage(Page[ServiceAccount], frozen=True):
    """Service accounts, in the order of their ids."""


def values_of(change: ServiceAccountChange) -> dict[str, Any]:
    """The given fields as in the proto, where a list that may be absent is a message."""
    values = named(change)
    values.pop("username", None)
    if "broker_ids" in values:
        ids = values.pop("broker_ids")
        values["brokers"] = None if ids is None else service_accounts_pb2.AccountBrokers(ids=ids)
    if "expires_at" in values:
        values["expires_at"] = timestamp("expires_at", values["expires_at"])
    return values


def account_columns(account: service_accounts_pb2.ServiceAccount) -> dict[str, Any]:
    """The JSON fields of an account, by name."""
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
