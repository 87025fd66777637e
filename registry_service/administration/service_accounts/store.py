"""Service accounts in the database."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.audit import HIDDEN
from chassis.database import reading, take_turns, writing
from chassis.revisions import require_revision
from chassis.searching import Start, ordered
from domain.turns import USERNAMES
from registry_service.errors import BrokerUnknown, ServiceAccountNotFound, UsernameTaken
from registry_service.tables import brokers, devices, service_accounts

SECRET = ("password_hash", "password_salt")
_shown = [column for column in service_accounts.c if column.name not in SECRET]
# The columns in the audit log.
_TOLD = (
    *("username", "description", "publish", "subscribe", "broker_ids", "expires_at"),
    "is_active",
)
_ROTATED = {"password": HIDDEN}


class ServiceAccountStore:
    """Rows come from `service_accounts`, without the password's hash."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def create(
        self, username: str, columns: Mapping[str, Any], kept: Mapping[str, str]
    ) -> sa.Row[Any]:
        """Returns the new row; `kept` holds the columns of its password.

        Raises `UsernameTaken`, `BrokerUnknown`.
        """
        namesake = sa.select(devices.c.id).where(
            devices.c.mqtt_username == username, devices.c.provisioned_by_key_id.is_(None)
        )
        insert = (
            sa.insert(service_accounts)
            .values(username=username, **columns, **kept)
            .returning(*_shown)
        )
        try:
            async with writing(self._engine) as connection:
                # Imports take this lock too, so no device gets the username meanwhile.
                await take_turns(connection, USERNAMES)
                await _require_brokers(connection, columns.get("broker_ids"))
                if await connection.scalar(namesake) is not None:
                    raise UsernameTaken("an imported device has this username", field="username")
                row = (await connection.execute(insert)).one()
                after = {name: getattr(row, name) for name in _TOLD}
                logged = {
                    name: value for name, value in after.items() if value not in (None, "", [])
                }
                await audit.record(connection, "service_account.create", str(row.id), after=logged)
                return row
        except IntegrityError:
            # Only this constraint can be violated after the checks.
            raise UsernameTaken("another account has this username", field="username") from None

    async def account(self, account_id: UUID) -> sa.Row[Any]:
        """Raises `ServiceAccountNotFound`."""
        async with reading(self._engine) as connection:
            return await _found(connection, sa.select(*_shown), account_id)

    async def accounts_from(self, start: Start[UUID], limit: int) -> Sequence[sa.Row[Any]]:
        """The next `limit` accounts, in the order of their ids."""
        texts = (service_accounts.c.username, service_accounts.c.description)
        query = ordered(sa.select(*_shown), start, service_accounts.c.id, texts=texts)
        async with reading(self._engine) as connection:
            rows: Sequence[sa.Row[Any]] = (await connection.execute(query.limit(limit))).all()
        return rows

    async def update(
        self, account_id: UUID, columns: Mapping[str, Any], if_revision: Collection[int]
    ) -> sa.Row[Any]:
        """Changes the named columns. If all have their values already, it ends no session.

        Raises `ServiceAccountNotFound`, `BrokerUnknown`, `LostRace`.
        """
        async with writing(self._engine) as connection:
            row = await _locked(connection, account_id, if_revision)
            before = {name: getattr(row, name) for name in columns}
            changed = {name: value for name, value in columns.items() if value != before[name]}
            if not changed:
                return row
            await _require_brokers(connection, changed.get("broker_ids"))
            update = sa.update(service_accounts).values(changed).returning(*_shown)
            after = await _found(connection, update, account_id)
            await audit.record(
                connection,
                "service_account.update",
                str(account_id),
                before={name: before[name] for name in changed},
                after=changed,
            )
            return after

    async def rotate(
        self, account_id: UUID, kept: Mapping[str, str], if_revision: Collection[int]
    ) -> sa.Row[Any]:
        """Replaces the password; `kept` holds the columns of the new one. The old password is
        invalid from the commit on. Raises `ServiceAccountNotFound`, `LostRace`.
        """
        async with writing(self._engine) as connection:
            await _locked(connection, account_id, if_revision)
            update = sa.update(service_accounts).values(kept).returning(*_shown)
            row = await _found(connection, update, account_id)
            await audit.record(
                connection,
                "service_account.rotate",
                str(account_id),
                before=_ROTATED,
                after=_ROTATED,
            )
            return row

    async def delete(self, account_id: UUID, if_revision: Collection[int]) -> None:
        """Raises `ServiceAccountNotFound`, `LostRace`."""
        delete = sa.delete(service_accounts).where(service_accounts.c.id == account_id)
        async with writing(self._engine) as connection:
            row = await _locked(connection, account_id, if_revision)
            await connection.execute(delete)
            before = {name: getattr(row, name) for name in _TOLD}
            await audit.record(connection, "service_account.delete", str(account_id), before=before)


async def _found(connection: AsyncConnection, statement: Any, account_id: UUID) -> sa.Row[Any]:
    found = await connection.execute(statement.where(service_accounts.c.id == account_id))
    row: sa.Row[Any] | None = found.one_or_none()
    if row is None:
        raise ServiceAccountNotFound("there is no such service account")
    return row


async def _locked(
    connection: AsyncConnection, account_id: UUID, if_revision: Collection[int]
) -> sa.Row[Any]:
    row = await _found(connection, sa.select(*_shown).with_for_update(), account_id)
    require_revision("account", row.revision, if_revision)
    return row


async def _require_brokers(connection: AsyncConnection, broker_ids: Sequence[int] | None) -> None:
    """Raises `BrokerUnknown` for the first broker that does not exist."""
    query = sa.select(brokers.c.id).where(brokers.c.id.in_(broker_ids or ()))
    found = set((await connection.execute(query)).scalars()) if broker_ids else set()
    for index, broker_id in enumerate(broker_ids or ()):
        if broker_id not in found:
            raise BrokerUnknown("there is no such broker", field=f"broker_ids[{index}]")
