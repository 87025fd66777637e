"""What an operator sets of a pool, and the rules for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mooring.broker.v1 import pools_pb2 as pb

from chassis.errors import InvalidInput
from chassis.validation import check_range, check_text
from domain.pools import Policy

MAX_INT32 = 2**31 - 1
MAX_MEMBERS = 1_000
MAX_WEIGHT = 10_000
MAX_PRIORITY = 100
POLICIES = tuple(policy.value for policy in Policy)
NAMES = ("name", "description", "policy", "is_sticky", "members")
DEFAULT_WEIGHT = 100
DEFAULT_PRIORITY = 1


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a pool. Each member has the columns of `pool_members` without the pool; they
    are in the order of the brokers' ids, as the database gives them.
    """

    name: str
    description: str = ""
    policy: str = Policy.WEIGHTED
    is_sticky: bool = True
    members: tuple[Mapping[str, int], ...] = ()

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Fields":
        """The fields of a row, or of a state in the history."""
        return cls(**{name: row[name] for name in NAMES} | {"members": tuple(row["members"])})

    @property
    def weights(self) -> dict[int, int]:
        """The weights of the members."""
        return {member["broker_id"]: member["weight"] for member in self.members}


def named(given: pb.PoolFields, names: Any) -> dict[str, Any]:
    """The values of the named fields; one that is named and not set gets its default. Raises
    `InvalidInput`.
    """
    default = Fields(name="")
    values: dict[str, Any] = {}
    for name in names:
        if name not in NAMES:
            raise InvalidInput("names an unknown field of a pool", field="update_mask")
        if not given.HasField(name):
            if name == "name":
                raise InvalidInput("cannot be taken away", field=name)
            values[name] = getattr(default, name)
        elif name == "members":
            values[name] = _members(given.members)
        else:
            values[name] = getattr(given, name)
    return values


def new(given: pb.PoolFields) -> Fields:
    """The fields of a new pool. Raises `InvalidInput`."""
    values = named(given, [field.name for field, _ in given.ListFields()])
    if "name" not in values:
        raise InvalidInput("is required", field="name")
    fields = Fields(**values)
    check(fields)
    return fields


def changed(before: Fields, values: Mapping[str, Any]) -> Fields:
    """The fields after a change. Raises `InvalidInput`."""
    after = replace(before, **values)
    if after != before:
        check(after)
    return after


def check(fields: Fields) -> None:
    """Raises `InvalidInput`."""
    check_text("name", fields.name, shortest=1, longest=200)
    check_text("description", fields.description, longest=1_000)
    if fields.policy not in POLICIES:
        raise InvalidInput("must be weighted, priority or nearest", field="policy")
    if len(fields.members) > MAX_MEMBERS:
        raise InvalidInput(f"at most {MAX_MEMBERS}", field="members")
    seen = set()
    for place, member in enumerate(fields.members):
        check_range(f"members[{place}].broker_id", member["broker_id"], 1, MAX_INT32)
        check_range(f"members[{place}].weight", member["weight"], 0, MAX_WEIGHT)
        check_range(f"members[{place}].priority", member["priority"], 1, MAX_PRIORITY)
        if member["broker_id"] in seen:
            raise InvalidInput("is there twice", field=f"members[{place}].broker_id")
        seen.add(member["broker_id"])


def _members(given: pb.PoolMembers) -> tuple[Mapping[str, int], ...]:
    members = (
        {
            "broker_id": member.broker_id,
            "weight": member.weight if member.HasField("weight") else DEFAULT_WEIGHT,
            "priority": member.priority if member.HasField("priority") else DEFAULT_PRIORITY,
        }
        for member in given.members
    )
    return tuple(sorted(members, key=lambda member: member["broker_id"]))
