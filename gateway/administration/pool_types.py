"""A pool in JSON. The fields are the columns of `pools`, with the members."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from mooring.broker.v1 import pools_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.administration.fields import Id, moment_of, optional, present
from gateway.administration.listing import Page
from gateway.documentation import documented
from gateway.examples import MOMENT

Policy = Literal["weighted", "priority", "nearest"]
Name = Annotated[str, documented(minLength=1, maxLength=200)]


class Member(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A broker in a pool."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"broker_id": 1, "weight": 100, "priority": 1}

    broker_id: Id
    weight: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="Its share of the devices; a member of weight 0 gets no device.",
        ),
    ] = 100
    priority: Annotated[
        int,
        Meta(ge=1, le=100, description="For the policy priority: the lowest number comes first."),
    ] = 1


class _Settings(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The optional fields; null resets a field to its default."""

    description: Annotated[str, documented(maxLength=1000)] | UnsetType | None = UNSET
    policy: (
        Annotated[
            Policy,
            Meta(
                description="weighted: devices are spread by the weights. priority: members in the "
                "order of their priorities. nearest: the member in the device's region, or else "
                "the nearest one."
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    is_sticky: (
        Annotated[
            bool,
            Meta(
                description="True: devices keep their homes when members or weights change, until "
                "a rebalancing reaches them."
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    members: (
        Annotated[
            list[Member],
            Meta(
                description="All members, at most 1000: a change replaces the list.",
                max_length=1000,
            ),
        ]
        | UnsetType
        | None
    ) = UNSET


class NewPool(_Settings, kw_only=True, frozen=True):
    """A new pool."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "name": "Europe",
        "policy": "weighted",
        "members": [Member.EXAMPLE],
    }

    name: Name


class PoolChange(_Settings, kw_only=True, frozen=True):
    """The fields to change; a field that is left out keeps its value."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"description": "two data centres", "is_sticky": True}

    name: Name | UnsetType = UNSET


class Pool(Struct, kw_only=True, frozen=True):
    """A pool of brokers."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": 1,
        "name": "Europe",
        "description": "",
        "policy": "weighted",
        "is_sticky": True,
        "is_default": False,
        "members": [Member.EXAMPLE],
        "rebalance_percent": None,
        "revision": 1,
        "created_at": MOMENT,
        "updated_at": MOMENT,
    }

    id: int
    name: str
    description: str
    policy: str
    is_sticky: bool
    is_default: bool
    members: Annotated[list[Member], Meta(description="In the order of the brokers' ids.")]
    rebalance_percent: Annotated[
        float | None,
        Meta(
            description="The share of the devices that the rebalancing has reached. Null: there is "
            "none under way."
        ),
    ]
    revision: int
    created_at: datetime | None
    updated_at: datetime | None


class MemberMove(Struct, kw_only=True, frozen=True):
    """What a change moves from one member to another."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "from_broker_id": 1,
        "to_broker_id": 2,
        "slots": 8192,
        "devices": 500,
    }

    from_broker_id: int
    to_broker_id: int
    slots: Annotated[int, Meta(description="Of the pool's 16,384 slots.")]
    devices: Annotated[
        int,
        Meta(
            description="About how many: the same share of the devices that were notified of the "
            "first broker."
        ),
    ]


class ChangedPool(Pool, kw_only=True, frozen=True):
    """A pool after a change; after a dry run, with what the change would move."""

    EXAMPLE: ClassVar[dict[str, Any]] = Pool.EXAMPLE

    moves: Annotated[list[MemberMove], Meta(description="Only after a dry run.")] | UnsetType = (
        UNSET
    )
    homes_stay: (
        Annotated[
            bool,
            Meta(
                description="Only after a dry run. True: the pool is sticky, so that only new "
                "devices follow the change, and devices that a rebalancing reaches."
            ),
        ]
        | UnsetType
    ) = UNSET


class PoolPage(Page[Pool], frozen=True):
    """Pools, in the order of their ids."""


def fields_of(values: dict[str, Any]) -> pools_pb2.PoolFields:
    """The fields of a body as a message; a value of None leaves its field unset."""
    given = present(values)
    if "members" in given:
        given["members"] = pools_pb2.PoolMembers(
            members=[
                pools_pb2.PoolMemberFields(
                    broker_id=member.broker_id, weight=member.weight, priority=member.priority
                )
                for member in given["members"]
            ]
        )
    return pools_pb2.PoolFields(**given)


def pool_json(pool: pools_pb2.PoolSettings) -> Pool:
    """The broker service's pool as JSON."""
    return Pool(**_values(pool))


def changed_json(answer: pools_pb2.UpdatePoolResponse, *, dry_run: bool) -> ChangedPool:
    """The broker service's pool after a change as JSON."""
    if not dry_run:
        return ChangedPool(**_values(answer.pool))
    moves = [
        MemberMove(
            from_broker_id=move.from_broker_id,
            to_broker_id=move.to_broker_id,
            slots=move.slots,
            devices=move.devices,
        )
        for move in answer.moves
    ]
    return ChangedPool(**_values(answer.pool), moves=moves, homes_stay=answer.homes_stay)


def _values(pool: pools_pb2.PoolSettings) -> dict[str, Any]:
    fields = pool.fields
    return {
        "id": pool.id,
        "name": fields.name,
        "description": fields.description,
        "policy": fields.policy,
        "is_sticky": fields.is_sticky,
        "is_default": pool.is_default,
        "members": [
            Member(broker_id=member.broker_id, weight=member.weight, priority=member.priority)
            for member in fields.members.members
        ],
        "rebalance_percent": optional(pool, "rebalance_percent"),
        "revision": pool.revision,
        "created_at": moment_of(pool, "created_at"),
        "updated_at": moment_of(pool, "updated_at"),
    }
