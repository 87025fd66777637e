"""Whether a line of the audit log proves that the person it names was there. No database in here.

The registry signs a ticket when it authenticates a person's token, and every line that is written
for that person keeps it. A service that is not the registry cannot make one, so it cannot write a
line in the name of a person who did not just ask it for something.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis.refusals import plain
from chassis.tickets import SKEW_S, InvalidTicket, PublicKeys, opened

DEVICE = "device"
REGISTRY, BROKER = "mooring_registry", "mooring_broker"
# Which role writes lines in these names, without a ticket: of a device, and of our commands.
WRITERS = {
    DEVICE: REGISTRY,
    "registry_service.bootstrap": REGISTRY,
    "registry_service.keys": REGISTRY,
    "broker_service.reencrypt": BROKER,
}
TOKEN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# What is done for a person is written while their ticket is good, or soon after.
LATE = timedelta(minutes=2)
# What was refused is written in the background, and again while the database is away.
REFUSAL_LATE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Written:
    """A line, as far as it has to do with who wrote it."""

    id: int
    at: datetime
    actor: str
    actor_id: str
    action: str
    subject: str
    refusal: str
    # None for a line that does not say it, as those from before.
    session_role: str | None
    ticket: bytes | None


def names_a_person(line: Written) -> bool:
    """Whether it is said of a person, or of nobody, a device or a command of ours."""
    if line.actor == DEVICE:
        return line.actor_id != line.subject
    if not line.actor:
        # Of a stranger, the address; the id of a token is a UUID.
        return TOKEN_ID.fullmatch(line.actor_id) is not None
    return bool(line.actor_id) or line.actor not in WRITERS


def is_proved(line: Written, keys: PublicKeys) -> bool:
    """Whether it names no person, or keeps a ticket of that person from when it was written.

    What a device or a command of ours did is written by the role of its service. A job goes on in
    the name of the person that had it run, so its lines may come later.
    """
    if not names_a_person(line):
        return line.session_role == WRITERS.get(line.actor, line.session_role)
    if line.ticket is None or line.session_role is None:
        return False
    try:
        found = opened(line.ticket, keys)
    except InvalidTicket:
        return False
    # What is written of a refusal is what a line can hold of a name.
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
