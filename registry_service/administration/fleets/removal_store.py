"""Deletes fleets in the database: devices and keys first, a chunk at a time, then the fleet."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, take_turns, writing
from chassis.revisions import require_revision
from domain.turns import PLACEMENT
from registry_service.administration.fleets.store import audit_fields, fleet_of
from registry_service.errors import FleetInUse
from registry_service.tables import (
    api_tokens,
    devices,
    expected_devices,
    fleets,
    provisioning_keys,
    refusal_counts,
    registration_counts,
)

Key = int | str | UUID

CHUNK = 5_000
# The tables whose rows belong to a fleet, in the order of deletion. The first column gives the
# order in which rows are locked, the same in all statements that lock several; the second names
# them in the audit log. Expected devices are deleted before devices, because deleting a device
# makes it expected again. Keys are deleted after the devices that registered with them.
BELONGINGS: dict[str, tuple[sa.Column[Any], sa.Column[Any]]] = {
    "expected_devices": (expected_devices.c.uuid, expected_devices.c.uuid),
    "devices": (devices.c.id, devices.c.uuid),
    "keys": (provisioning_keys.c.id, provisioning_keys.c.id),
}

# When a key or a fleet is deleted, the database searches for rows that refer to it. Its statistics
# are older than the deletion of the devices, so it might choose to scan the whole table.
BY_INDEX = sa.text("SET LOCAL enable_seqscan = off")


class FleetRemovalStore:
    """Each method is a transaction, and safe to repeat."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def delete_chunk(self, fleet_id: str, which: str, after: Key | None) -> Key | None:
        """Deletes the fleet's next rows of the table `which` in `BELONGINGS`, after `after`.

        Returns the last key if there may be more rows. If another row refers to one of them, none
        of the chunk is deleted.
        """
        key, name = BELONGINGS[which]
        table = key.table
        chosen = sa.select(key).where(table.c.fleet_id == fleet_id).order_by(key).limit(CHUNK)
        if after is not None:
            # From the beginning, the database would read all rows that were just deleted.
            chosen = chosen.where(key > after)
        locked = chosen.with_for_update().cte("chosen").prefix_with("MATERIALIZED")
        delete = sa.delete(table).where(key.in_(sa.select(locked.c[key.name]))).returning(key, name)
        try:
            async with writing(self._engine) as connection:
                await connection.execute(BY_INDEX)
                gone = (await connection.execute(delete)).all()
                if gone:
                    named = {"uuids" if name.name == "uuid" else "ids": sorted(g[1] for g in gone)}
                    await audit.record(connection, f"fleet.delete_{which}", fleet_id, before=named)
        except IntegrityError:
            return None
        return max(row[0] for row in gone) if len(gone) == CHUNK else None

    async def delete(self, fleet_id: str, if_revision: Collection[int] = ()) -> None:
        """Deletes the fleet, and removes it from tokens that are restricted to it. Raises
        `FleetNotFound`, `LostRace`, `FleetInUse`.
        """
        await self._require_unused(fleet_id, if_revision)
        try:
            async with writing(self._engine) as connection:
                await take_turns(connection, PLACEMENT)
                await connection.execute(BY_INDEX)
                fleet = await fleet_of(connection, fleet_id, is_locked=True)
                require_revision("fleet", fleet.revision, if_revision)
                await connection.execute(sa.delete(fleets).where(fleets.c.id == fleet_id))
                await audit.record(connection, "fleet.delete", fleet_id, before=audit_fields(fleet))
                await _remove_from_tokens(connection, fleet_id)
                # A later fleet with the same id may be another customer's.
                for counts in (registration_counts, refusal_counts):
                    await connection.execute(
                        sa.delete(counts).where(
                            counts.c.step.in_(("minute", "hour", "day")),
                            counts.c.fleet_id == fleet_id,
                        )
                    )
        except IntegrityError:
            # A row was added meanwhile.
            await self._require_unused(fleet_id, if_revision)
            raise FleetInUse("the fleet is in use: try again") from None

    async def _require_unused(self, fleet_id: str, if_revision: Collection[int]) -> None:
        """Raises `FleetNotFound`, `LostRace`, `FleetInUse`."""
        counts = sa.select(
            *(
                sa.select(sa.func.count())
                .select_from(key.table)
                .where(key.table.c.fleet_id == fleet_id)
                .scalar_subquery()
                .label(which)
                for which, (key, _) in BELONGINGS.items()
            )
        )
        async with reading(self._engine) as connection:
            fleet = await fleet_of(connection, fleet_id)
            # A person who saw another version of the fleet is told of that first.
            require_revision("fleet", fleet.revision, if_revision)
            usage = dict((await connection.execute(counts)).mappings().one())
        if any(usage.values()):
            users = ", ".join(
                f"{count} {(which if count > 1 else which[:-1]).replace('_', ' ')}"
                for which, count in usage.items()
                if count
            )
            raise FleetInUse(
                f"the fleet has {users}: delete them first, or all with with_devices=true",
                usage=usage,
            )


async def _remove_from_tokens(connection: AsyncConnection, fleet_id: str) -> None:
    """Removes the fleet from tokens that are restricted to it, and revokes tokens for no other
    fleet. So no token is valid for a later fleet with the same id.
    """
    rest = sa.func.array_remove(api_tokens.c.fleet_ids, fleet_id)
    is_theirs = sa.literal(fleet_id) == sa.any_(api_tokens.c.fleet_ids)
    is_all = sa.func.cardinality(rest) == 0
    revoke = (
        sa.update(api_tokens)
        .where(is_theirs, is_all, api_tokens.c.is_active)
        .values(is_active=False)
        .returning(api_tokens.c.id)
    )
    for token_id in (await connection.execute(revoke)).scalars().all():
        await audit.record(
            connection,
            "token.revoke",
            str(token_id),
            before={"is_active": True},
            after={"is_active": False},
        )
    narrow = (
        sa.update(api_tokens)
        .where(is_theirs, ~is_all)
        .values(fleet_ids=rest)
        .returning(api_tokens.c.id, api_tokens.c.fleet_ids)
    )
    for token_id, left in (await connection.execute(narrow)).all():
        await audit.record(
            connection,
            "token.leave_fleet",
            str(token_id),
            before={"fleet_ids": sorted([*left, fleet_id])},
            after={"fleet_ids": sorted(left)},
        )
