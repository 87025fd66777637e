"""Records changes in the audit log. A line is written in the transaction of the change itself.

So neither a change nor its line exists without the other. The services' roles can only append to
the table. `chassis.refusals` writes refused attempts, which have no transaction.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.log import actor, actor_id, request_id
from chassis.tickets import ticket

# The columns that are written; the table belongs to the registry.
log_table = sa.table(
    "audit_log",
    *map(
        sa.column,
        ("actor", "actor_id", "action", "subject", "refusal", "count", "request_id"),
    ),
    sa.column("ticket", sa.LargeBinary),
    sa.column("before", JSONB(none_as_null=True)),
    sa.column("after", JSONB(none_as_null=True)),
    sa.column("details", JSONB(none_as_null=True)),
)

# Replaces a secret in a line. A line may show that a secret exists or existed.
HIDDEN = "(hidden)"
SECRET_NAME = re.compile(
    r"(^|_)(password|passphrase|secret|private_key|api_key|token|salt|hash|encrypted)(_|$)"
)
# Secrets anywhere in a text: Mooring's tokens, keys and secrets, private keys in PEM, and the user
# and password of a URL.
SECRET_VALUE = re.compile(
    r"\b(mat|mpk|mbs|mcs|msc)_[\w-]{16,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=://)[^/\s@]+@",
    re.DOTALL,
)

WORD = re.compile(r"(?<!^)(?=[A-Z])")


def action_of(method: str, request: Message | None = None) -> str:
    """The name of a gRPC method in the log: /mooring.broker.v1.BrokerService/SetDefaultBroker is
    broker.set_default. A method with an `action` in its request is named after that: ActOnJob with
    JOB_ACTION_START is job.start.
    """
    service, _, verb = method.rpartition("/")
    noun = service.rpartition(".")[2].removesuffix("Service")
    if verb == f"ActOn{noun}" and request is not None and (action := _action_in(request)):
        verb = action
    verb = re.sub(f"(?<!^){noun}s?", "", verb, count=1) or verb
    return ".".join(WORD.sub("_", word).lower() for word in (noun, verb))


def _action_in(request: Message) -> str:
    """The action of a request, such as start; empty if it is unknown."""
    kind = request.DESCRIPTOR.fields_by_name["action"].enum_type
    number = getattr(request, "action", 0)
    if kind is None or number == 0 or number not in kind.values_by_number:
        return ""
    prefix = WORD.sub("_", kind.name).upper()
    return kind.values_by_number[number].name.removeprefix(f"{prefix}_").lower()


async def record(
    connection: AsyncConnection,
    action: str,
    subject: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Writes a line for a change, in the transaction of the change, with the current actor and
    request.

    `action` is a noun and a verb, such as broker.update; `subject` is an id or a uuid, as at the
    end of the path. `before` and `after` hold the changed fields by name, with values that are
    JSON, times or ids. Read `before` after locking its row, so that it is correct. Equal fields are
    left out, and without a difference no line is written. Values that have the name or the form of
    a secret are hidden.
    """
    if before is not None and after is not None:
        same = {
            name
            for name in before.keys() & after.keys()
            if before[name] == after[name] and not SECRET_NAME.search(name)
        }
        before = {name: value for name, value in before.items() if name not in same}
        after = {name: value for name, value in after.items() if name not in same}
        if not before and not after:
            return
    await connection.execute(
        sa.insert(log_table).values(
            actor=actor.get(),
            actor_id=actor_id.get(),
            action=action,
            subject=without_secrets(subject),
            before=None if before is None else shown(before),
            after=None if after is None else shown(after),
            request_id=request_id.get(),
            ticket=ticket.get(),
        )
    )


def without_secrets(text: str) -> str:
    """The text, with everything hidden that has the form of a secret."""
    return SECRET_VALUE.sub(HIDDEN, text)


def shown(value: Any, name: str = "") -> Any:
    """A value as JSON, with every secret in it hidden. `name` is the name of its field."""
    if value is None or isinstance(value, bool):
        return value  # a line may show whether a secret exists
    if SECRET_NAME.search(name) or isinstance(value, bytes):
        return HIDDEN
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): shown(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [shown(inner) for inner in value]
    return without_secrets(str(value))
