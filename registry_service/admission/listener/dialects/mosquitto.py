"""Mosquitto with mosquitto-go-auth, its `http` backend.

https://github.com/iegomez/mosquitto-go-auth#http. Accepts both `http_params_mode`s, json and form.
One answer works for the `http_response_mode`s status and json. The mode text requires the body
"ok", which is not JSON, so with it all clients are refused.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

from registry_service.admission.listener.dialects.asked import (
    FORM,
    JSON,
    Asked,
    DialectReply,
    Operation,
    check_names,
    content_type,
    read_form,
    read_json,
)
from registry_service.admission.questions import (
    Connect,
    Publish,
    Question,
    Receive,
    Subscribe,
    Use,
    Verdict,
    is_allowed,
)
from registry_service.topics import without_share

Body = TypeVar("Body")


class Credentials(msgspec.Struct):
    """The fields for a client that connects."""

    username: str
    password: str
    clientid: str


class Action(msgspec.Struct):
    """The fields for a client that publishes, subscribes or receives.

    `acc` is one of Mosquitto's MOSQ_ACL_READ, _WRITE, both, _SUBSCRIBE and _UNSUBSCRIBE
    (https://mosquitto.org/api/files/mosquitto_broker-h.html): a number in JSON, text in a form.
    """

    username: str
    clientid: str
    topic: str
    acc: Literal[1, 2, 3, 4, 8, "1", "2", "3", "4", "8"]


class Denial(msgspec.Struct):
    """The body for the response mode json."""

    ok: bool = msgspec.field(name="Ok")
    error: str = msgspec.field(name="Error")


_credentials = msgspec.json.Decoder(Credentials)
_action = msgspec.json.Decoder(Action)
_encoder = msgspec.json.Encoder()

ALLOW = DialectReply(200, JSON, b'{"Ok":true,"Error":""}')


class Answering:
    """Replies with the verdict, in the status and in the body."""

    def answer(self, request: Asked, verdicts: Sequence[Verdict]) -> DialectReply:  # noqa: ARG002
        """The reply. To the plugin a 4xx is a denial and a 5xx an error, for every question."""
        if is_allowed(verdicts):
            return ALLOW
        reason = next((verdict.reason for verdict in verdicts if not verdict.is_allowed), "")
        return DialectReply(403, JSON, _encoder.encode(Denial(ok=False, error=reason)))


class User(Answering):
    """Asks whether a client may connect."""

    def read(self, request: Asked) -> Sequence[Question]:
        """One `Connect`."""
        found = _read(Credentials, _credentials, request)
        check_names(found.username, found.password, found.clientid)
        return [Connect(found.username, found.password, found.clientid)]


class Superuser(Answering):
    """Asks whether a client may do everything. No client may."""

    def read(self, request: Asked) -> Sequence[Question]:  # noqa: ARG002
        """No question, so the answer is a denial."""
        return []


class Acl(Answering):
    """Asks whether a client may publish, subscribe, unsubscribe or receive a message."""

    def read(self, request: Asked) -> Sequence[Question]:
        """The question that `acc` stands for."""
        found = _read(Action, _action, request)
        username, client_id, topic = found.username, found.clientid, found.topic
        check_names(username, client_id)
        match int(found.acc):
            case 1:
                return [Receive(username, client_id, topic)]
            case 2:
                return [Publish(username, client_id, topic)]
            case 3:
                return [Receive(username, client_id, topic), Publish(username, client_id, topic)]
            case 4:
                return [Subscribe(username, client_id, without_share(topic))]
            case _:
                # A client that is admitted may unsubscribe from everything.
                return [Use(username, client_id)]


def _read(kind: type[Body], decoder: "msgspec.json.Decoder[Body]", request: Asked) -> Body:
    if content_type(request) == FORM:
        return read_form(kind, request.body)
    return read_json(decoder, request)


OPERATIONS: Mapping[str, Operation] = {
    "user": User(),
    "superuser": Superuser(),
    "acl": Acl(),
}
