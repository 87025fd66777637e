"""Where devices, fleets and brokers stand, as the database has it."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from broker_service.resolution import Broker, Directory, FleetRule, Placement
from broker_service.tables import brokers, certificates, devices, fleet_brokers, fleets
from chassis.database import LIVENESS, reading
from chassis.errors import Unavailable

CHANNEL = "mooring_placement"

_ca = certificates.alias("ca")
_client = certificates.alias("client")
_all_brokers = sa.select(
    brokers, _ca.c.pem.label("ca_cert"), _client.c.pem.label("client_cert")
).select_from(
    brokers.outerjoin(_ca, brokers.c.ca_certificate_id == _ca.c.id).outerjoin(
        _client, brokers.c.client_certificate_id == _client.c.id
    )
)
_all_fleets = sa.select(
    fleets.c.id,
    fleets.c.mqtt_broker_id,
    fleets.c.is_restricted,
    fleets.c.revision,
    sa.select(sa.func.array_agg(fleet_brokers.c.broker_id, type_=sa.ARRAY(sa.Integer)))
    .where(fleet_brokers.c.fleet_id == fleets.c.id)
    .scalar_subquery()
    .label("allowed_ids"),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """All brokers and fleets as of one moment; `rows` are the brokers with their PEM texts."""

    directory: Directory
    rows: Sequence[sa.RowMapping]


class PlacementStore:
    """Reads only."""

    def __init__(self, engine: AsyncEngine, url: str) -> None:
        """Both connect as mooring_broker; `url` is for listening, which needs no pool."""
        self._engine = engine
        self._url = url

    async def read(self) -> Reading:
        """Raises `Unavailable`."""
        async with reading(self._engine) as connection:
            # One moment for both: a fleet's broker is among the brokers.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            rows = (await connection.execute(_all_brokers)).mappings().all()
            fleet_rows = (await connection.execute(_all_fleets)).all()
        return Reading(
            Directory(
                brokers={row["id"]: Broker(row["id"], row["is_active"]) for row in rows},
                fleets={
                    row.id: FleetRule(
                        row.mqtt_broker_id,
                        frozenset(row.allowed_ids or ()) if row.is_restricted else None,
                        row.revision,
                    )
                    for row in fleet_rows
                },
                default_id=next((row["id"] for row in rows if row["is_default"]), None),
            ),
            rows,
        )

    async def placements_of(self, uuids: Sequence[str]) -> dict[str, Placement]:
        """Those of the uuids that are registered. Raises `Unavailable`."""
        query = (
            sa.select(
                devices.c.uuid, devices.c.mqtt_broker_id, devices.c.fleet_id, fleets.c.revision
            )
            .join_from(devices, fleets, fleets.c.id == devices.c.fleet_id)
            .where(devices.c.uuid == sa.any_(sa.literal(list(uuids), sa.ARRAY(sa.Text))))
        )
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        return {uuid: Placement(*placement) for uuid, *placement in rows}

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
        """A connection on which every later change is announced. Raises `Unavailable`."""
        try:
            async with await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, **LIVENESS
            ) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                yield connection
        except psycopg.Error as error:
            raise Unavailable("the database cannot be listened to") from error
