"""A broker in JSON. The fields are the columns of `mqtt_broker_config`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from mooring.broker.v1 import brokers_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.administration.certificate_types import CertificateWarning, warnings_json
from gateway.administration.fields import MAX_INT32, MAX_INT64, Id, moment_of, optional, present
from gateway.administration.listing import Page
from gateway.documentation import documented
from gateway.examples import MOMENT

Protocol = Literal["mqtt", "mqtts", "ws", "wss"]
ManagedAs = Literal["", "mosquitto", "emqx", "rabbitmq"]
Milliseconds = Annotated[int, Meta(ge=0, le=MAX_INT32)]
Port = Annotated[int, Meta(ge=1, le=65535)]


Name = Annotated[str, documented(minLength=1, maxLength=255)]
Host = Annotated[
    str,
    documented(
        minLength=1,
        maxLength=253,
        description="A host name, which may contain underscores, or an IPv4 or IPv6 address.",
    ),
]
Text64 = Annotated[str, documented(maxLength=64)]
Labels = Annotated[
    dict[str, str],
    Meta(
        description="Labels for the operator's own use: at most 64, with keys as in Kubernetes "
        "and values of up to 255 characters. A change replaces all labels.",
        extra_json_schema={"maxProperties": 64, "examples": [{"site": "berlin"}]},
    ),
]
Username = Annotated[
    str,
    documented(
        minLength=1,
        maxLength=255,
        description="The username with which a service connects to the broker.",
    ),
]
Password = Annotated[
    str,
    documented(
        minLength=1,
        maxLength=4096,
        writeOnly=True,
        description="Can be set and never read. Requires a username.",
    ),
]
Management = Annotated[
    ManagedAs,
    Meta(
        description="How Mooring manages the broker, with `username` and `password`; empty: "
        "Mooring does not manage it."
    ),
]
ManagementUrl = Annotated[
    str,
    documented(
        maxLength=2000,
        description="The URL of the management API. Required for emqx and rabbitmq, not allowed "
        "for others. https, or http on the same machine.",
        examples=["https://emqx.example.com:18083"],
    ),
]

BackupId = Annotated[
    Id,
    Meta(
        description="The id of another broker, which serves while this one is down, unless a "
        "pool decides; null: none."
    ),
]
Capacity = Annotated[
    int,
    Meta(
        ge=0,
        le=MAX_INT64,
        description="How many devices may get it as their home in pools; null: any number.",
    ),
]


class _Settings(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The optional fields; null resets a field to its default, or removes its value."""

    description: Annotated[str, documented(maxLength=2000)] | UnsetType | None = UNSET
    protocol: Protocol | UnsetType | None = UNSET
    path: (
        Annotated[str, Meta(description="The path of the websocket, for ws and wss.")]
        | UnsetType
        | None
    ) = UNSET
    use_tls: (
        Annotated[bool, Meta(description="Determined by the protocol; may be left out.")]
        | UnsetType
        | None
    ) = UNSET
    verify_certificate: bool | UnsetType | None = UNSET
    client_id_prefix: Text64 | UnsetType | None = UNSET
    keep_alive: (
        Annotated[int, Meta(ge=0, le=65535, description="In seconds; 0 turns keep alive off.")]
        | UnsetType
        | None
    ) = UNSET
    clean_session: bool | UnsetType | None = UNSET
    reconnect_period: Milliseconds | UnsetType | None = UNSET
    connect_timeout: Milliseconds | UnsetType | None = UNSET
    ca_cert: (
        Annotated[
            str,
            Meta(description="PEM of the CA certificates with which clients verify the broker."),
        ]
        | UnsetType
        | None
    ) = UNSET
    ca_certificate_id: (
        Annotated[
            Id, Meta(description="The id of a CA bundle of `/certificates`, instead of `ca_cert`.")
        ]
        | UnsetType
        | None
    ) = UNSET
    client_certificate_id: (
        Annotated[
            Id, Meta(description="The id of the client certificate with which clients connect.")
        ]
        | UnsetType
        | None
    ) = UNSET
    is_active: bool | UnsetType | None = UNSET
    region: Text64 | UnsetType | None = UNSET
    username: Username | UnsetType | None = UNSET
    password: Password | UnsetType | None = UNSET
    labels: Labels | UnsetType | None = UNSET
    management: Management | UnsetType | None = UNSET
    management_url: ManagementUrl | UnsetType | None = UNSET
    backup_broker_id: BackupId | UnsetType | None = UNSET
    capacity: Capacity | UnsetType | None = UNSET


class NewBroker(_Settings, kw_only=True, frozen=True):
    """A new broker."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "name": "Cloud",
        "protocol": "mqtts",
        "host": "mqtt.example.com",
        "port": 8883,
        "region": "eu",
        "labels": {"site": "berlin"},
    }

    name: Name
    host: Host
    port: Port


class BrokerChange(_Settings, kw_only=True, frozen=True):
    """The fields to change; a field that is left out keeps its value."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"keep_alive": 30, "description": "in the basement"}

    name: Name | UnsetType = UNSET
    host: Host | UnsetType = UNSET
    port: Port | UnsetType = UNSET


class Broker(Struct, kw_only=True, frozen=True):
    """A broker, without its secrets."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": 1,
        "name": "Local Broker",
        "description": "",
        "protocol": "mqtt",
        "host": "localhost",
        "port": 5883,
        "path": "",
        "use_tls": False,
        "verify_certificate": True,
        "client_id_prefix": "mooring",
        "keep_alive": 60,
        "clean_session": True,
        "reconnect_period": 1000,
        "connect_timeout": 30000,
        "ca_cert": None,
        "is_active": True,
        "region": "",
        "username": None,
        "has_password": False,
        "labels": {"site": "berlin"},
        "management": "",
        "management_url": "",
        "backup_broker_id": None,
        "capacity": None,
        "is_default": True,
        "ca_certificate_id": None,
        "client_certificate_id": None,
        "revision": 1,
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "warnings": [],
    }

    id: int
    name: str
    description: Annotated[str, documented(maxLength=2000)] | None
    protocol: str
    host: str
    port: int
    path: str | None
    use_tls: bool
    verify_certificate: bool
    client_id_prefix: str | None
    keep_alive: int
    clean_session: bool
    reconnect_period: int
    connect_timeout: int
    ca_cert: str | None
    is_active: bool
    region: str | None
    username: str | None
    has_password: bool
    labels: dict[str, str]
    management: str | None
    management_url: str | None
    backup_broker_id: int | None
    capacity: int | None
    is_default: bool
    ca_certificate_id: int | None
    client_certificate_id: int | None
    revision: int
    created_at: datetime | None
    updated_at: datetime | None
    warnings: Annotated[
        list[CertificateWarning],
        Meta(
            description="Problems of its certificates now: why TLS clients would refuse to connect."
        ),
    ]


class BrokerPage(Page[Broker], frozen=True):
    """Brokers, in the order of their ids."""


COLUMNS = tuple(
    name
    for name in brokers_pb2.BrokerFields.DESCRIPTOR.fields_by_name
    if name not in ("password", "labels", "ca_certificate_id", "client_certificate_id")
)


def fields_of(values: dict[str, Any]) -> brokers_pb2.BrokerFields:
    """The fields of a body as a message; a value of None leaves its field unset."""
    given = present(values)
    if "labels" in given:
        given["labels"] = brokers_pb2.Labels(values=given["labels"])
    return brokers_pb2.BrokerFields(**given)


def broker_json(broker: brokers_pb2.Broker) -> Broker:
    return Broker(
        id=broker.id,
        is_default=broker.is_default,
        has_password=broker.has_password,
        labels=dict(broker.fields.labels.values),
        ca_certificate_id=optional(broker, "ca_certificate_id"),
        client_certificate_id=optional(broker, "client_certificate_id"),
        revision=broker.revision,
        created_at=moment_of(broker, "created_at"),
        updated_at=moment_of(broker, "updated_at"),
        warnings=warnings_json(broker.warnings),
        **{column: optional(broker.fields, column) for column in COLUMNS},
    )
