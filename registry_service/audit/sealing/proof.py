"""Pure functions that check whether a line of the audit log has a valid ticket of the person that
it names.

The registry signs a ticket when it authenticates a person's token, and every line for that person
keeps the ticket. Other services cannot make tickets, so they cannot write a line in the name of a
person without a recent call of that person.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis.refusals import plain
from chassis.tickets import SKEW_S, InvalidTicket, PublicKeys, opened

DEVICE = "device"
REGISTRY, BROKER = "mooring_registry", "mooring_broker"
# The role that writes lines of devices and of Mooring's commands, which have no ticket.
WRITERS = {
    DEVICE: REGISTRY,
    "registry_service.bootstrap": REGISTRY,
    "registry_service.administration.server_keys": REGISTRY,
    "broker_service.reencrypt": BROKER,
}
TOKEN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# A change is written while the person's ticket is valid, or soon after.
LATE = timedelta(minutes=2)
# A refusal is written in the background, and later if the database was down.
REFUSAL_LATE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Written:
    """The columns of a line that name or prove its actor."""

    id: int
    at: datetime
    actor: str
    actor_id: str
    action: str
    subject: str
    refusal: str
    # None if the line is older than this column.
    session_role: str | None
    ticket: bytes | None


def names_a_person(line: Written) -> bool:
    """Whether the line's actor is a person. It is not in lines of devices, of commands and of
    callers without a valid secret.
    """
    if line.actor == DEVICE:
        return line.actor_id != line.subject
    if not line.actor:
        # A caller without a valid secret has its address here. The id of a token is a UUID.
        return TOKEN_ID.fullmatch(line.actor_id) is not None
    return bool(line.actor_id) or line.actor not in WRITERS


def is_proved(line: Written, keys: PublicKeys) -> bool:
    """Whether a line names no person, or keeps a ticket of that person from the time of the line.

    A line of a device or a command must be written by the role of its service. A job continues in
    the name of the person that started it, so its lines may be written later.
    """
    if not names_a_person(line):
        return line.session_role == WRITERS.get(line.actor, line.session_role)
    if line.ticket is None or line.session_role is None:
        return False
    try:
        found = opened(line.ticket, keys)
    except InvalidTicket:
        return False
    # In the line of a refusal, the name is in plain form (`plain`).
    names = (found.actor, plain(found.actor))
    if line.actor_id != found.actor_id or line.actor not in names:
        return False
    at = line.at.timestamp()
    if at < found.issued_at - SKEW_S:
        return False
    if line.action.startswith("job.") and line.session_role == REGISTRY:
        return True
    late = REFUSAL_LATE if line.refusal else LATE
    return at < found.expires_at + SKEW_S + late.total_seconds()
