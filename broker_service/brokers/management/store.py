"""The managed brokers in the database."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from broker_service.database import Row, all_brokers, ca_cert_of
from broker_service.destinations import destination_of
from broker_service.encryption import EncryptionKeys
from broker_service.passwords import Passwords
from broker_service.tables import brokers, local_brokers_kept
from chassis.database import reading

_endpoint = sa.case(
    (brokers.c.management == "mosquitto", sa.func.concat(brokers.c.host, ":", brokers.c.port)),
    else_=brokers.c.management_url,
)
_is_kept = sa.exists().where(
    local_brokers_kept.c.broker_id == brokers.c.id, local_brokers_kept.c.endpoint == _endpoint
)
_managed = (
    all_brokers.add_columns(_is_kept.label("may_be_local"))
    .where(brokers.c.is_active, brokers.c.management != "")
    .order_by(brokers.c.id)
)


class ManagementStore:
    """Reads only. Rows come from `all_brokers`, with `may_be_local`."""

    def __init__(self, engine: AsyncEngine, keys: EncryptionKeys) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine
        self._passwords = Passwords(keys)

    async def managed(self) -> Sequence[Row]:
        """The active managed brokers, in the order of their ids. Raises `Unavailable`."""
        async with reading(self._engine) as connection:
            return (await connection.execute(_managed)).mappings().all()

    def password_of(self, row: Row) -> str:
        """The password, for the destination in the row. Raises `SecretUnreadable`,
        `SecretNotBound`, `SecretBoundElsewhere`.
        """
        destination = destination_of(row, ca_cert_of(row))
        return self._passwords.read(row["id"], row["password_encrypted"], destination)
