"""Decides whether a client may do something at a broker, over plain values."""

from collections.abc import Iterator

from chassis.validation import IDENTIFIER
from registry_service.admission.questions import (
    Connect,
    Grants,
    Publish,
    Question,
    Receive,
    Subscribe,
    Use,
    Verdict,
)
from registry_service.admission.subjects import Subject
from registry_service.topics import covers, is_topic, matches

USERNAME_PREFIX = "device_"

ALLOWED = Verdict(is_allowed=True)
USER_UNKNOWN = Verdict(is_allowed=False, reason="USER_UNKNOWN")
PASSWORD_WRONG = Verdict(is_allowed=False, reason="PASSWORD_WRONG")
# Too many slow passwords of the username are being checked, or were wrong.
TOO_MANY_ATTEMPTS = Verdict(is_allowed=False, reason="TOO_MANY_ATTEMPTS")
DISABLED = Verdict(is_allowed=False, reason="DISABLED")
EXPIRED = Verdict(is_allowed=False, reason="EXPIRED")
# The last answer to the device did not name this broker.
NOT_TOLD = Verdict(is_allowed=False, reason="BROKER_NOT_TOLD")
CLIENT_ID_TAKEN = Verdict(is_allowed=False, reason="CLIENT_ID_TAKEN")
TOPIC_NOT_GRANTED = Verdict(is_allowed=False, reason="TOPIC_NOT_GRANTED")

# A broker gets this reason instead of one that would reveal other brokers' devices, or help to
# guess passwords. Metrics count the true reasons.
NOT_ALLOWED = Verdict(is_allowed=False, reason="NOT_ALLOWED")
HIDDEN = frozenset(
    verdict.reason for verdict in (USER_UNKNOWN, PASSWORD_WRONG, TOO_MANY_ATTEMPTS, NOT_TOLD)
)


def admits(subject: Subject | None, broker_id: int, now: float) -> Verdict:
    """Whether this broker may admit the subject at all; `now` is Unix seconds."""
    if subject is None:
        return USER_UNKNOWN
    # This comes first: other brokers must not learn more about the subject.
    if subject.broker_ids is not None and broker_id not in subject.broker_ids:
        return NOT_TOLD
    if not subject.is_active:
        return DISABLED
    if subject.expires_at is not None and subject.expires_at <= now:
        return EXPIRED
    return ALLOWED


def verdict_for_broker(verdict: Verdict) -> Verdict:
    """The verdict as the broker gets it."""
    return NOT_ALLOWED if verdict.reason in HIDDEN else verdict


def connect_verdict(
    subject: Subject, *, is_current: bool, is_taken: bool, session_s: float, now: float
) -> Verdict:
    """The verdict on a connection of a subject that the broker admits and that has sent one of its
    passwords.

    `is_current`: it has sent the current password, not the previous one. `is_taken`: its client id
    belongs to another client. The session ends when the access ends, at the latest after
    `session_s`.
    """
    if is_taken:
        return CLIENT_ID_TAKEN
    ends = [now + session_s]
    if not is_current:
        ends.append(subject.previous_until)
    if subject.expires_at is not None:
        ends.append(subject.expires_at)
    grants = Grants(tuple(subject.publish), tuple(subject.subscribe))
    return Verdict(is_allowed=True, grants=grants, expires_at=int(min(ends)))


def action_verdict(subject: Subject, question: Question) -> Verdict:
    """The verdict on another question, about a subject that the broker admits."""
    match question:
        case Publish(topic=topic):
            is_granted = is_topic(topic) and any(matches(grant, topic) for grant in subject.publish)
        case Receive(topic=topic):
            is_granted = is_topic(topic) and any(
                matches(grant, topic) for grant in subject.subscribe
            )
        case Subscribe(topic_filter=wanted):
            is_granted = any(covers(grant, wanted) for grant in subject.subscribe)
        case Use():
            is_granted = True
        case Connect():
            is_granted = False
    return ALLOWED if is_granted else TOPIC_NOT_GRANTED


def uuids_claimed(client_id: str, prefix: str) -> Iterator[str]:
    """The uuids of devices to which this client id may belong.

    A client id belongs to a device if it is the device's uuid or username, or the uuid after the
    broker's client id prefix. A client id that a device's agent has invented names no device.
    """
    for beginning in ("", USERNAME_PREFIX, f"{prefix}-", f"{prefix}_"):
        if client_id.startswith(beginning):
            rest = client_id[len(beginning) :]
            if IDENTIFIER.fullmatch(rest):
                yield rest


def uuid_of_username(username: str) -> str | None:
    """The uuid in the username of a device that has registered; None for any other."""
    rest = username.removeprefix(USERNAME_PREFIX)
    return rest if rest != username and IDENTIFIER.fullmatch(rest) else None
