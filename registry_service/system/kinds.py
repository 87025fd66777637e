"""The kinds of things that change."""

from collections.abc import Iterable
from typing import TypeAlias

from mooring.registry.v1 import system_pb2 as pb

Kind: TypeAlias = pb.ChangeKind.ValueType

ALL: tuple[Kind, ...] = tuple(
    kind for kind in pb.ChangeKind.values() if kind != pb.CHANGE_KIND_UNSPECIFIED
)
# What follows from a change that the database notes, besides the kind of the same name. A
# registration is noted once, so that it costs little: it also adds a device, counts the use of a
# provisioning key, and makes credentials with a server key.
IMPLIED: dict[str, tuple[Kind, ...]] = {
    "registrations": (
        pb.CHANGE_KIND_DEVICES,
        pb.CHANGE_KIND_PROVISIONING_KEYS,
        pb.CHANGE_KIND_SERVER_KEYS,
    ),
    "devices": (pb.CHANGE_KIND_SERVER_KEYS,),
    # A rollout is a part of the row of its fleet.
    "fleets": (pb.CHANGE_KIND_ROLLOUTS,),
}
# The names that the database notes.
NOTED: dict[str, Kind] = {
    pb.ChangeKind.Name(kind).removeprefix("CHANGE_KIND_").lower(): kind for kind in ALL
}


def implied_by(noted: Iterable[str]) -> list[Kind]:
    """The kinds that changed, each once and in order, if the database noted these names."""
    kinds = {kind for name in noted for kind in (NOTED[name], *IMPLIED.get(name, ()))}
    return sorted(kinds)
