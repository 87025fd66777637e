"""Who changed what: a line of the audit log is written in the transaction of the change itself.

So there is no change without its line, and no line without its change. The table is append-only
for the services' roles.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.log import actor, actor_id, request_id

# The columns that are written; the table belongs to the registry.
_log = sa.table(
    "audit_log",
    *map(sa.column, ("actor", "actor_id", "action", "subject", "request_id")),
    sa.column("before", JSONB(none_as_null=True)),
    sa.column("after", JSONB(none_as_null=True)),
)


async def record(
    connection: AsyncConnection,
    action: str,
    subject: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Notes a change in its own transaction, with the actor and the request that are served.

    `action` is the noun and the verb, as in broker.update; `subject` is what its path ends with: an
    id or a uuid. `before` and `after` hold what changed, as JSON values, and never a secret.
    """
    await connection.execute(
        sa.insert(_log).values(
            actor=actor.get(),
            actor_id=actor_id.get(),
            action=action,
            subject=subject,
            before=before,
            after=after,
            request_id=request_id.get(),
        )
    )
