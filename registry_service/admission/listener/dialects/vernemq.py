"""VerneMQ: its webhooks, all to one address; a header names the hook.

https://docs.vernemq.com/plugin-development/webhookplugins. Every answer is a 200. Other hooks are
of no use to Mooring: an answer to `on_deliver`, for example, cannot hold a message back.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from registry_service.admission.listener.dialects.asked import (
    JSON,
    Asked,
    DialectReply,
    Operation,
    Unreadable,
    check_names,
    read_json,
)
from registry_service.admission.questions import (
    Connect,
    Notice,
    Publish,
    Question,
    Subscribe,
    Verdict,
    is_allowed,
)
from registry_service.topics import without_share


class Registration(msgspec.Struct):
    """The fields of auth_on_register. One that the client leaves out is null, which is refused."""

    username: str
    password: str
    client_id: str
    peer_addr: str | None = None
    peer_port: int | None = None


class Publication(msgspec.Struct):
    """The fields of auth_on_publish."""

    username: str
    client_id: str
    topic: str


class Subscription(msgspec.Struct, omit_defaults=True):
    """One of several topics, with the options of MQTT 5."""

    topic: str
    # The requested quality of service, or the code of a denial.
    qos: Literal[0, 1, 2, 128, 135]
    no_local: bool | UnsetType = UNSET
    rap: bool | UnsetType = UNSET
    retain_handling: str | UnsetType = UNSET


class Subscriptions(msgspec.Struct):
    """The fields of auth_on_subscribe."""

    username: str
    client_id: str
    topics: list[Subscription]


class Coming(msgspec.Struct):
    """The fields of on_register, on_client_wakeup, on_client_offline and on_client_gone."""

    client_id: str
    username: str | None = None
    # Sent by on_register only.
    peer_addr: str | None = None
    peer_port: int | None = None


_registration = msgspec.json.Decoder(Registration)
_publication = msgspec.json.Decoder(Publication)
_subscriptions = msgspec.json.Decoder(Subscriptions)
_coming = msgspec.json.Decoder(Coming)
_encoder = msgspec.json.Encoder()

# Called for a client whose session is kept; for others, on_client_gone is called.
OFFLINE = b"on_client_offline"
IS_ONLINE = {
    b"on_register": True,
    b"on_register_m5": True,
    b"on_client_wakeup": True,
    OFFLINE: False,
    b"on_client_gone": False,
}

# How long VerneMQ caches that a publication is allowed. For this time, a disabled device can go on
# publishing. Other answers are not cached: a client connects and subscribes once, and VerneMQ's
# cache never shrinks by itself.
MAX_AGE_S = 3
# The most topics of one request; each is checked separately.
MAX_TOPICS = 500

ALLOW = DialectReply(200, JSON, b'{"result":"ok"}')
ALLOW_FOR_A_WHILE = DialectReply(
    200, JSON, ALLOW.body, ((b"cache-control", f"max-age={MAX_AGE_S}".encode()),)
)
DENY = DialectReply(200, JSON, b'{"result":{"error":"not_allowed"}}')
NOTED = DialectReply(200, JSON, b"{}")

# The quality of service in the answer for a topic to which the client may not subscribe.
FAILURE: Literal[128] = 128
NOT_AUTHORIZED: Literal[135] = 135


class Webhook:
    """Handles all hooks."""

    def read(self, request: Asked) -> Sequence[Question] | Sequence[Notice]:
        """One `Subscribe` for each topic; one question for every other hook."""
        hook = _hook(request)
        if hook in IS_ONLINE:
            came = read_json(_coming, request)
            username = came.username or ""
            peer = _peer(came)
            check_names(username, came.client_id, peer)
            is_online, is_kept = IS_ONLINE[hook], hook == OFFLINE
            return [Notice(username, came.client_id, is_online, is_kept, peer=peer)]
        match hook.removesuffix(b"_m5"):
            case b"auth_on_register":
                client = read_json(_registration, request)
                peer = _peer(client)
                check_names(client.username, client.password, client.client_id, peer)
                return [Connect(client.username, client.password, client.client_id, peer)]
            case b"auth_on_publish":
                found = read_json(_publication, request)
                check_names(found.username, found.client_id)
                return [Publish(found.username, found.client_id, found.topic)]
            case b"auth_on_subscribe":
                asked = read_json(_subscriptions, request)
                check_names(asked.username, asked.client_id)
                if len(asked.topics) > MAX_TOPICS:
                    raise Unreadable("these are too many topics")
                return [
                    Subscribe(asked.username, asked.client_id, without_share(wanted.topic))
                    for wanted in asked.topics
                ]
        raise Unreadable("there is no such hook")

    def answer(self, request: Asked, verdicts: Sequence[Verdict]) -> DialectReply:
        """The reply in the hook's form."""
        hook = _hook(request)
        if hook in IS_ONLINE:
            return NOTED
        if is_allowed(verdicts):
            is_publication = hook.startswith(b"auth_on_publish")
            return ALLOW_FOR_A_WHILE if is_publication else ALLOW
        if not any(verdict.is_allowed for verdict in verdicts):
            return DENY
        # Only some of the topics are allowed.
        topics = read_json(_subscriptions, request).topics
        is_m5 = hook.endswith(b"_m5")
        refused: Literal[135, 128] = NOT_AUTHORIZED if is_m5 else FAILURE
        allowed = [
            wanted if verdict.is_allowed else Subscription(wanted.topic, refused)
            for wanted, verdict in zip(topics, verdicts, strict=True)
        ]
        changes = {"topics": allowed}
        answer = {"result": "ok"} | ({"modifiers": changes} if is_m5 else changes)
        return DialectReply(200, JSON, _encoder.encode(answer))


def _peer(client: Registration | Coming) -> str:
    """The client's address and port; empty if VerneMQ does not send them."""
    if client.peer_addr is None or client.peer_port is None:
        return ""
    return f"{client.peer_addr}:{client.peer_port}"


def _hook(request: Asked) -> bytes:
    return request.headers.get(b"vernemq-hook", b"")


OPERATIONS: Mapping[str, Operation] = {"webhook": Webhook()}
