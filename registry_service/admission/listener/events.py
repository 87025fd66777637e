"""Events for the timelines of devices: which brokers asked about them, and the verdicts."""

from registry_service.activity.timeline.events import (
    CONNECT_REFUSED,
    CONNECTED,
    Client,
    Event,
    address_of,
    address_of_peer,
)
from registry_service.admission.decision import NOT_TOLD, USER_UNKNOWN, uuid_of_username
from registry_service.admission.questions import Connect, Question, Verdict


def event_of(broker_id: int, question: Question, verdict: Verdict) -> Event | None:
    """The event of a verdict on a `Connect`; None for other questions and unknown clients."""
    if not isinstance(question, Connect) or verdict.reason == USER_UNKNOWN.reason:
        return None
    # A broker could make up addresses for devices that it does not serve.
    is_served = verdict.reason != NOT_TOLD.reason
    username = question.username
    return Event(
        Client(uuid_of_username(username) or "", username),
        CONNECTED if verdict.is_allowed else CONNECT_REFUSED,
        verdict.reason,
        broker_id,
        _address_of(question) if is_served else "",
    )


def _address_of(question: Connect) -> str:
    """The client's address; empty if the broker does not send it."""
    if question.address:
        return address_of(question.address)
    return address_of_peer(question.peer) if question.peer else ""
