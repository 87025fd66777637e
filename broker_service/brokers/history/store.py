"""Reads the histories of brokers, which a trigger writes, and rolls brokers back."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.database import (
    Row,
    audited,
    broker_of,
    changing,
    destination_in,
    require_backup,
)
from broker_service.differences import COMPARED, SECRETS
from broker_service.encryption import EncryptionKeys
from broker_service.errors import BrokerNotFound, RevisionNotFound
from broker_service.passwords import Passwords
from broker_service.tables import brokers, certificates, history
from chassis.database import reading
from chassis.errors import LostRace
from chassis.revisions import require_revision

# The columns that a rollback restores: all except `is_default`, which also concerns another broker.
RESTORED = (*(name for name in COMPARED if name != "is_default"), *SECRETS)

_whole = sa.select(history, certificates.c.pem.label("ca_cert")).outerjoin_from(
    history, certificates, history.c.ca_certificate_id == certificates.c.id
)

State = Mapping[str, Any]


class HistoryStore:
    """Rows come from `mqtt_broker_history`; deleted brokers have them too."""

    def __init__(self, engine: AsyncEngine, keys: EncryptionKeys) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine
        self._passwords = Passwords(keys)

    async def revisions_before(
        self, broker_id: int, revision: int | None, limit: int
    ) -> Sequence[Row]:
        """The next revisions, newest first. Raises `BrokerNotFound` if there never was such a
        broker.
        """
        query = sa.select(history).where(history.c.broker_id == broker_id)
        if revision is not None:
            query = query.where(history.c.revision < revision)
        query = query.order_by(history.c.revision.desc()).limit(limit)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).mappings().all()
        if not rows and revision is None:
            raise BrokerNotFound("there is no revision of such a broker")
        return rows

    async def state_at(self, broker_id: int, revision: int) -> State:
        """The broker's columns as they were, with `ca_cert`. Raises `RevisionNotFound`."""
        async with reading(self._engine) as connection:
            return await _state_at(connection, broker_id, revision)

    async def roll_back(
        self,
        broker_id: int,
        revision: int,
        check: Callable[[State, State | None], None],
        if_revision: Collection[int] = (),
        password: str | None = None,
    ) -> Row:
        """Restores the broker to `revision`; a deleted broker is created again with its id. `check`
        gets the columns after and before the rollback, and raises for values that are no longer
        allowed. `password` replaces the password of the revision. Raises `RevisionNotFound`,
        `PasswordKeyGone`, `BrokerNameTaken`, `BrokerIsDefault`, `BrokerUnknown`, `LostRace`,
        `InvalidInput` if the password is needed and is not given, and the errors of `check`.
        """
        async with changing(self._engine) as connection:
            state = await _state_at(connection, broker_id, revision)
            try:
                before = await broker_of(connection, broker_id, is_locked=True)
            except BrokerNotFound:
                before = None
            # Columns that did not exist at the revision stay as they are.
            values = {name: state[name] for name in RESTORED if name in state}
            restored = {**(before or {}), **values}
            given = {} if password is None else {"password_encrypted": b""}
            check(restored | given, None if before is None else {**before})
            await require_backup(connection, before, values)
            destination = await destination_in(connection, restored)
            if password is not None:
                sealed = self._passwords.sealed(broker_id, password, destination)
                values["password_encrypted"] = sealed
            elif (kept := state["password_encrypted"]) is not None:
                self._passwords.require_restorable(
                    broker_id,
                    kept,
                    now=await destination_in(connection, before)
                    if before and before["management"]
                    else None,
                    then=destination,
                    is_managed=bool(restored.get("management")),
                )
            if before is None:
                if if_revision:
                    raise LostRace("the broker has been deleted since")
                created_at = datetime.fromisoformat(state["created_at"])
                row = {"id": broker_id, "created_at": created_at}
                await connection.execute(sa.insert(brokers).values(row | values))
            else:
                require_revision("broker", before["revision"], if_revision)
                await connection.execute(
                    sa.update(brokers).where(brokers.c.id == broker_id).values(values)
                )
            after = await broker_of(connection, broker_id)
            await audited(connection, "broker.rollback", before, after)
            return after


async def _state_at(connection: AsyncConnection, broker_id: int, revision: int) -> State:
    query = _whole.where(history.c.broker_id == broker_id, history.c.revision == revision)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise RevisionNotFound("the broker has no such revision")
    if row["state"] is None:
        raise RevisionNotFound("the broker was deleted with this revision")
    return state_of(row)


def state_of(row: Row) -> State:
    """The broker's columns at a revision that is not a deletion."""
    kept = {"password_encrypted": row["password_encrypted"], "ca_cert": row.get("ca_cert")}
    return {**row["state"], **kept}
