"""RabbitMQ 3.10 and later: rabbitmq_auth_backend_http, for clients of its MQTT plugin only.

https://github.com/rabbitmq/rabbitmq-server/tree/main/deps/rabbitmq_auth_backend_http. It asks with
the query string of a GET or with the form of a POST, and expects a 200 with "allow" or "deny". The
MQTT plugin turns a topic into a routing key: "/" becomes ".", "+" becomes "*". In the key of a
subscription, a word that is "*" or "#" is a wildcard, even if it was none in MQTT, and is checked
as one; a star within a word is a letter. In the key of a message every star is a letter. A client
may name any virtual host, before a colon in its username. It is admitted to one: "/", or the one
that the URLs in RabbitMQ's configuration name (`?vhost=iot`, with POST).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from registry_service.admission.listener.dialects.asked import (
    FORM,
    TEXT,
    Asked,
    DialectReply,
    Operation,
    Unreadable,
    check_names,
    content_type,
    read_form,
)
from registry_service.admission.questions import (
    Connect,
    Publish,
    Question,
    Subscribe,
    Use,
    Verdict,
    is_allowed,
)

# The default of the plugin's `mqtt.exchange`.
EXCHANGE = "amq.topic"
DEFAULT_VHOST = "/"

ALLOW = DialectReply(200, TEXT, b"allow")
# The answer has no reason, because not every version can read it.
DENY = DialectReply(200, TEXT, b"deny")


class Credentials(msgspec.Struct):
    """The fields of user_path. A client that does not use MQTT has no client id, and is refused."""

    username: str
    password: str
    client_id: str
    vhost: str


class Vhost(msgspec.Struct):
    """The fields of vhost_path."""

    username: str
    vhost: str
    client_id: str = ""


class Resource(msgspec.Struct):
    """The fields of resource_path."""

    username: str
    vhost: str
    resource: str
    name: str
    permission: Literal["configure", "write", "read"]
    client_id: str = ""


class Topic(msgspec.Struct):
    """The fields of topic_path. `name` is the name of the exchange."""

    username: str
    vhost: str
    name: str
    permission: Literal["write", "read"]
    routing_key: str
    client_id: str = msgspec.field(name="variable_map.client_id", default="")


class Query(msgspec.Struct):
    """The query string of the URL, if RabbitMQ asks with POST."""

    vhost: str


class Answering:
    """Replies with the verdict in one word."""

    def answer(self, request: Asked, verdicts: Sequence[Verdict]) -> DialectReply:  # noqa: ARG002
        """The same reply for every question."""
        return ALLOW if is_allowed(verdicts) else DENY


class User(Answering):
    """Asks whether a client may connect. It gets no tags, so it cannot log in to the management."""

    def read(self, request: Asked) -> Sequence[Question]:
        """One `Connect`."""
        found = read_form(Credentials, _form(request))
        check_names(found.username, found.password, found.client_id)
        _check_vhost(request, found.vhost)
        return [Connect(found.username, found.password, found.client_id)]


class VhostAccess(Answering):
    """Asks whether a client may use a virtual host."""

    def read(self, request: Asked) -> Sequence[Question]:
        """One `Use`."""
        found = read_form(Vhost, _form(request))
        check_names(found.username, found.client_id)
        _check_vhost(request, found.vhost)
        return [Use(found.username, found.client_id)]


class ResourceAccess(Answering):
    """Asks whether a client may use the resources that the MQTT plugin needs: the exchange, and the
    client's own queues.
    """

    def read(self, request: Asked) -> Sequence[Question]:
        """One `Use`, or nothing for everything else."""
        found = read_form(Resource, _form(request))
        check_names(found.username, found.client_id)
        _check_vhost(request, found.vhost)
        if found.resource == "exchange":
            is_used = found.name == EXCHANGE and found.permission != "configure"
        else:
            is_used = found.resource == "queue" and found.name in _queues_of(found.client_id)
        return [Use(found.username, found.client_id)] if is_used else []


class TopicAccess(Answering):
    """Asks whether a client may publish or subscribe."""

    def read(self, request: Asked) -> Sequence[Question]:
        """One `Publish` or `Subscribe`, or nothing for another exchange."""
        found = read_form(Topic, _form(request))
        check_names(found.username, found.client_id)
        _check_vhost(request, found.vhost)
        if found.name != EXCHANGE or "/" in found.routing_key:
            # No key has a "/" that comes from MQTT.
            return []
        words = found.routing_key.split(".")
        if found.permission == "write":
            return [Publish(found.username, found.client_id, "/".join(words))]
        wanted = "/".join("+" if word == "*" else word for word in words)
        return [Subscribe(found.username, found.client_id, wanted)]


def _form(request: Asked) -> bytes:
    if not request.body:
        return request.query
    if content_type(request) != FORM:
        raise Unreadable("the body is no form")
    return request.body


def _check_vhost(request: Asked, vhost: str) -> None:
    """Raises `Unreadable` for a virtual host that is not for devices."""
    is_named = request.body and request.query
    if vhost != (read_form(Query, request.query).vhost if is_named else DEFAULT_VHOST):
        raise Unreadable("this virtual host is not for devices")


def _queues_of(client_id: str) -> tuple[str, ...]:
    """The names of a client's queues: for QoS 0 and 1, and since 3.13 for a delayed will."""
    if not client_id:
        # For a client without a client id, the MQTT plugin chooses one.
        return ()
    subscriptions = f"mqtt-subscription-{client_id}qos"
    return (f"{subscriptions}0", f"{subscriptions}1", f"mqtt-will-{client_id}")


OPERATIONS: Mapping[str, Operation] = {
    "user": User(),
    "vhost": VhostAccess(),
    "resource": ResourceAccess(),
    "topic": TopicAccess(),
}
