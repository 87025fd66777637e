"""Rollouts in the database: four columns of the fleet, so that each change is one write."""

import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

import sqlalchemy as sa
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import take_turns, writing
from chassis.isolation import Fleets
from chassis.revisions import require_revision
from domain.turns import PLACEMENT
from registry_service.administration.allowance_store import require_allowed
from registry_service.administration.fleets.store import fleet_of
from registry_service.errors import BrokerInactive, BrokerUnknown, RolloutNotFound
from registry_service.tables import brokers, fleets

Row = sa.Row[Any]


class RolloutStore:
    """Rows come from `fleets`. A trigger adds the time, and a salt if none is given."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def set(
        self,
        fleet_id: str,
        broker_id: int,
        percent: float,
        salt: str | None,
        within: Fleets,
        if_revision: Collection[int] = (),
    ) -> tuple[Row, bool]:
        """Returns the fleet, and whether this is another rollout than the previous one, if any.

        Raises `FleetNotFound`, `LostRace`, `BrokerUnknown`, `BrokerInactive`, `BrokerNotAllowed`.
        """
        async with self._changing(fleet_id, within, if_revision) as (connection, before):
            wanted = (broker_id, percent, salt or before.rollout_salt)
            if wanted == (before.rollout_broker_id, before.rollout_percent, before.rollout_salt):
                return before, False
            await _require_target(connection, before, broker_id, within)
            if salt is None and before.rollout_broker_id == broker_id:
                salt = before.rollout_salt
            after = await _written(
                connection,
                "rollout.set",
                before,
                {
                    "rollout_broker_id": broker_id,
                    "rollout_percent": percent,
                    "rollout_salt": salt,
                },
            )
            return after, before.rollout_began_at != after.rollout_began_at

    async def stop(self, fleet_id: str, within: Fleets, if_revision: Collection[int] = ()) -> None:
        """Raises `FleetNotFound`, `LostRace`, `RolloutNotFound`."""
        async with self._changing(fleet_id, within, if_revision) as (connection, before):
            require_rollout(before)
            await _written(connection, "rollout.stop", before, {"rollout_broker_id": None})

    async def complete(
        self, fleet_id: str, within: Fleets, if_revision: Collection[int] = ()
    ) -> Row:
        """Returns the changed fleet. Raises `FleetNotFound`, `LostRace`, `RolloutNotFound`,
        `BrokerInactive`, `BrokerNotAllowed`.
        """
        async with self._changing(fleet_id, within, if_revision) as (connection, before):
            require_rollout(before)
            await _require_target(connection, before, before.rollout_broker_id, within)
            return await _written(
                connection,
                "rollout.complete",
                before,
                {
                    "mqtt_broker_id": before.rollout_broker_id,
                    # A fleet has a broker or a pool.
                    "pool_id": None,
                    "rollout_broker_id": None,
                },
            )

    @contextlib.asynccontextmanager
    async def _changing(
        self, fleet_id: str, within: Fleets, if_revision: Collection[int]
    ) -> AsyncIterator[tuple[AsyncConnection, Row]]:
        """Begins a transaction, and yields its connection and the fleet, which is locked. Raises
        `FleetNotFound`, `LostRace`.
        """
        try:
            async with writing(self._engine) as connection:
                await take_turns(connection, PLACEMENT)
                fleet = await fleet_of(connection, fleet_id, within, is_locked=True)
                require_revision("fleet", fleet.revision, if_revision)
                yield connection, fleet
        except IntegrityError as error:
            if isinstance(error.orig, ForeignKeyViolation):
                # The broker was deleted by SQL after this transaction had read it.
                raise BrokerUnknown("there is no such broker", field="broker_id") from None
            raise


def require_rollout(fleet: Row) -> None:
    """Raises `RolloutNotFound`."""
    if fleet.rollout_broker_id is None:
        raise RolloutNotFound("this fleet has no rollout under way")


async def _require_target(
    connection: AsyncConnection, fleet: Row, broker_id: int, within: Fleets
) -> None:
    """Raises `BrokerUnknown`, `BrokerNotAllowed`, `BrokerInactive`. If the broker could not serve
    the devices that the rollout reaches, the rollout would test nothing.
    """
    await require_allowed(connection, fleet.id, broker_id, within, field="broker_id")
    query = sa.select(brokers.c.is_active).where(brokers.c.id == broker_id)
    if not await connection.scalar(query):
        raise BrokerInactive("activate the broker before a rollout to it", field="broker_id")


async def _written(
    connection: AsyncConnection, action: str, before: Row, values: dict[str, Any]
) -> Row:
    """Writes `values`, and returns the changed fleet."""
    await connection.execute(sa.update(fleets).where(fleets.c.id == before.id).values(values))
    after = await fleet_of(connection, before.id)
    await audit.record(
        connection, action, after.id, before=_audit_fields(before), after=_audit_fields(after)
    )
    return after


def _audit_fields(fleet: Row) -> dict[str, Any]:
    """The fields for the audit log. The salt is not a secret, although its name looks like one."""
    rollout = None
    if fleet.rollout_broker_id is not None:
        rollout = {
            "broker_id": fleet.rollout_broker_id,
            "percent": fleet.rollout_percent,
            "began_at": fleet.rollout_began_at,
        }
    return {
        "mqtt_broker_id": fleet.mqtt_broker_id,
        "pool_id": fleet.pool_id,
        "rollout": rollout,
    }
