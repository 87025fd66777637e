"""Checks which brokers and pools a fleet may use: a device with another broker would never be
served.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.errors import MooringError
from chassis.isolation import Fleets
from registry_service.errors import BrokerNotAllowed, BrokerUnknown, PoolUnknown

# The reason why a fleet may not use a broker, or null. It uses a row of `fleets` with the alias
# fleet, and one of `mqtt_broker_config` with the alias broker. `within` are the fleets that the
# actor is restricted to, or null: for such an actor, a broker that none of these fleets may use
# does not exist.
VERDICT = """CASE
    WHEN broker.id IS NULL THEN 'BROKER_UNKNOWN'
    WHEN NOT fleet.is_restricted OR EXISTS (
        SELECT FROM fleet_brokers AS allowed
        WHERE allowed.fleet_id = fleet.id AND allowed.broker_id = broker.id
    ) THEN NULL
    WHEN CAST(:within AS text[]) IS NULL OR EXISTS (
        SELECT FROM fleets AS other
        WHERE other.id = ANY (CAST(:within AS text[])) AND (
            NOT other.is_restricted OR EXISTS (
                SELECT FROM fleet_brokers AS allowed
                WHERE allowed.fleet_id = other.id AND allowed.broker_id = broker.id
            )
        )
    ) THEN 'BROKER_NOT_ALLOWED'
    ELSE 'BROKER_UNKNOWN'
END"""

_JUDGE = sa.text(
    f"SELECT {VERDICT} FROM fleets AS fleet"  # noqa: S608 - of constants
    " LEFT JOIN mqtt_broker_config AS broker ON broker.id = :broker_id WHERE fleet.id = :fleet_id"
)


def facts(field: str) -> dict[str, MooringError]:
    """The error for a verdict; `field` names the broker."""
    return {
        fact.reason: fact
        for fact in (
            BrokerUnknown("there is no such broker", field=field),
            BrokerNotAllowed("the fleet is restricted to other brokers", field=field),
        )
    }


async def require_allowed(
    connection: AsyncConnection, fleet_id: str, broker_id: int | None, within: Fleets, *, field: str
) -> None:
    """Raises `BrokerUnknown`, `BrokerNotAllowed`. No broker (None) is allowed, and so is every
    broker for a fleet that does not exist. If a fleet is restricted a moment later, that takes
    effect too, because resolving checks it again.
    """
    if broker_id is None:
        return
    asked = {
        "fleet_id": fleet_id,
        "broker_id": broker_id,
        "within": None if within is None else sorted(within),
    }
    verdict = await connection.scalar(_JUDGE, asked)
    if verdict is not None:
        raise facts(field)[verdict]


# Whether there is a pool, for actors within these fleets. The registry does not know the members of
# pools, so pools exist only for actors with a fleet that may use every broker.
_POOL = sa.text("""
SELECT EXISTS (SELECT FROM pools WHERE id = :pool_id) AND (
    CAST(:within AS text[]) IS NULL OR EXISTS (
        SELECT FROM fleets WHERE id = ANY (CAST(:within AS text[])) AND NOT is_restricted
    )
)
""")


async def require_pool(
    connection: AsyncConnection, pool_id: int | None, within: Fleets, *, field: str
) -> None:
    """Raises `PoolUnknown`. No pool (None) is allowed. The restriction of a fleet holds for the
    members of its pool too, because resolving checks it.
    """
    if pool_id is None:
        return
    asked = {"pool_id": pool_id, "within": None if within is None else sorted(within)}
    if not await connection.scalar(_POOL, asked):
        raise PoolUnknown("there is no such pool", field=field)
