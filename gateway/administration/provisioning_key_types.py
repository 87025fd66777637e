"""A provisioning key in JSON."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.administration.fields import Id, Moment
from gateway.administration.listing import Page
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.examples import KEY_ID, MOMENT

Description = Annotated[str, documented(maxLength=2000)]
MaxDevices = Annotated[Id, Meta(description="Null: no limit.")]
Pin = Annotated[
    Id, Meta(description="Becomes the pin of every device that registers with the key.")
]
DeviceTypes = Annotated[
    list[Annotated[str, documented(minLength=1, maxLength=64)]],
    Meta(
        description="Only devices of these types can register with the key. Null: of any type.",
        extra_json_schema={"minItems": 1, "maxItems": 100},
    ),
]
Networks = Annotated[
    list[Annotated[str, documented(examples=["192.0.2.0/24", "2001:db8::/32"])]],
    Meta(
        description="The key can be used from these networks only (CIDR). Null: from anywhere.",
        extra_json_schema={"minItems": 1, "maxItems": 100},
    ),
]
Uuids = Annotated[
    list[Annotated[str, documented(pattern=IDENTIFIER_PATTERN)]],
    Meta(
        description="Only devices with these uuids can register with the key. Null: with any uuid.",
        extra_json_schema={"minItems": 1, "maxItems": 1000},
    ),
]
Prefix = Annotated[
    str,
    documented(
        pattern=IDENTIFIER_PATTERN,
        description="Only devices whose uuid begins with this can register with the key. Null: "
        "with any uuid.",
    ),
]
OnlyExpected = Annotated[
    bool,
    Meta(description="Only devices that are expected in the key's fleet can register with it."),
]


DefaultPool = Annotated[
    Id,
    Meta(
        description="The pool of every device that registers with the key, instead of "
        "`default_broker_id`: to replace one, set it to null in the same request."
    ),
]


class NewProvisioningKey(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The devices that can register with a new key. Null means the same as a field that is left
    out.
    """

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "fleet_id": "demo",
        "description": "the first hall",
        "max_devices": 5000,
        "expires_at": "2099-12-31T23:59:59Z",
        "allowed_device_types": ["raspberry-pi-4"],
        "source_networks": ["192.0.2.0/24"],
    }

    fleet_id: Annotated[str, documented(pattern=IDENTIFIER_PATTERN)]
    description: Description | None = None
    max_devices: MaxDevices | None = None
    default_broker_id: Pin | None = None
    default_pool_id: DefaultPool | None = None
    expires_at: Annotated[Moment, Meta(description="Null: never.")] | None = None
    allowed_device_types: DeviceTypes | None = None
    source_networks: Networks | None = None
    allowed_uuids: Uuids | None = None
    uuid_prefix: Prefix | None = None
    only_expected: OnlyExpected | None = None


class ProvisioningKeyChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The fields to change; a field that is left out keeps its value, null clears it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"max_devices": 6000, "uuid_prefix": None}

    description: Description | UnsetType | None = UNSET
    max_devices: MaxDevices | UnsetType | None = UNSET
    default_broker_id: Pin | UnsetType | None = UNSET
    default_pool_id: DefaultPool | UnsetType | None = UNSET
    expires_at: (
        Annotated[Moment, Meta(description="A time in the past ends the key now. Null: never.")]
        | UnsetType
        | None
    ) = UNSET
    allowed_device_types: DeviceTypes | UnsetType | None = UNSET
    source_networks: Networks | UnsetType | None = UNSET
    allowed_uuids: Uuids | UnsetType | None = UNSET
    uuid_prefix: Prefix | UnsetType | None = UNSET
    only_expected: OnlyExpected | UnsetType = UNSET


class ListedProvisioningKey(Struct, kw_only=True, frozen=True):
    """A key in lists: without the key itself and without long lists."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": KEY_ID,
        "fleet_id": "demo",
        "description": "the first hall",
        "max_devices": 5000,
        "devices_provisioned": 1,
        "default_broker_id": None,
        "default_pool_id": None,
        "expires_at": "2099-12-31T23:59:59Z",
        "is_active": True,
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "last_used_at": MOMENT,
        "allowed_device_types": ["raspberry-pi-4"],
        "source_networks": ["192.0.2.0/24"],
        "allowed_uuid_count": None,
        "uuid_prefix": None,
        "only_expected": False,
        "revision": 1,
    }

    id: str
    fleet_id: str
    description: str
    max_devices: int | None
    devices_provisioned: int
    default_broker_id: int | None
    default_pool_id: int | None
    expires_at: datetime | None
    is_active: bool
    created_at: datetime | None
    updated_at: datetime | None
    last_used_at: (
        Annotated[datetime, Meta(description="When a new device last registered with the key.")]
        | None
    )
    allowed_device_types: list[str] | None
    source_networks: list[str] | None
    allowed_uuid_count: int | None
    uuid_prefix: str | None
    only_expected: bool
    revision: Annotated[
        int, Meta(description="Goes up with each change of the key, and not when it is used.")
    ]


class ProvisioningKey(ListedProvisioningKey, kw_only=True, frozen=True):
    """A key, without the key itself."""

    EXAMPLE: ClassVar[dict[str, Any]] = {**ListedProvisioningKey.EXAMPLE, "allowed_uuids": None}

    allowed_uuids: list[str] | None


class CreatedProvisioningKey(ProvisioningKey, kw_only=True, frozen=True):
    """`key` is what devices send. Only this answer contains it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        **ListedProvisioningKey.EXAMPLE,
        "allowed_uuids": None,
        "key": "mpk_gN3tV5pQ7rS9uW1xY3zA5bC7dE9fG1hI3jK5lM7nO9p",
    }

    key: str


class ProvisioningKeyPage(Page[ListedProvisioningKey], frozen=True):
    """Keys, in the order of their ids."""


class Revocation(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What happens to devices that registered with the key."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"devices": "deactivate"}

    devices: Annotated[
        Literal["keep", "deactivate"],
        Meta(description="`keep`: they keep their credentials."),
    ] = "keep"


class Revoked(Struct, kw_only=True, frozen=True):
    """The result of a revocation."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"devices_deactivated": 1, "is_complete": True}

    devices_deactivated: Annotated[int, Meta(description="The devices that this call deactivated.")]
    is_complete: Annotated[
        bool, Meta(description="False if time ran out: repeat the request for the rest.")
    ]
