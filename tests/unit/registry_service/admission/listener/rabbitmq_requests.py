"""The HTTP requests of RabbitMQ about an MQTT client, in order and byte for byte.

Recorded from RabbitMQ 3.10.8 on Erlang 25.2.3, with rabbitmq_mqtt, rabbitmq_auth_backend_http and
"auth_http.http_method = post". `WAY_4` was recorded from 4.0.5 and 4.3.6: they ask for less, and in
another order. `test_rabbitmq_node.py` uses real nodes.

With "get" the same text is the query; there is no content type then, and nothing else changes.

Topics and filters arrive as AMQP routing keys: "/" as ".", "+" as "*", and nothing else changes. So
"." separates levels, "*" is a wildcard in a filter, and "#" is a wildcard at any place.

Unless stated otherwise, the client has the id mooring_device_abc and the username device_abc, and
nothing has been asked about it since it connected. RabbitMQ remembers the last 12 topics and the
last 12 resources that it was allowed, as long as it is never quiet for a second.
"""

from typing import NamedTuple


class Recorded(NamedTuple):
    """One request: the last segment of its path, and its form."""

    operation: str
    form: bytes


# Apart from "host" and "content-length", and before Erlang 28 an empty "te".
HEADERS = {
    "content-type": "application/x-www-form-urlencoded",
    "connection": "keep-alive",
}


def _resource(kind: str, name: str, permission: str) -> Recorded:
    return Recorded(
        "resource",
        f"username=device_abc&vhost=%2F&resource={kind}&name={name}&permission={permission}"
        "&tags=&client_id=mooring_device_abc".encode(),
    )


def _topic(permission: str, routing_key: str) -> Recorded:
    return Recorded(
        "topic",
        f"username=device_abc&vhost=%2F&resource=topic&name=amq.topic&permission={permission}"
        f"&tags=&routing_key={routing_key}&variable_map.client_id=mooring_device_abc"
        "&variable_map.username=device_abc&variable_map.vhost=%2F".encode(),
    )


def _published(routing_key: str) -> tuple[Recorded, ...]:
    """RabbitMQ asks about the MQTT client, and again about the AMQP channel inside it."""
    return (
        _topic("write", routing_key),
        _resource("exchange", "amq.topic", "write"),
        _topic("write", routing_key),
    )


# It connects with the password s3cret.
CONNECT = (
    Recorded("user", b"username=device_abc&password=s3cret&vhost=%2F&client_id=mooring_device_abc"),
    Recorded(
        "vhost", b"username=device_abc&vhost=%2F&ip=127.0.0.1&tags=&client_id=mooring_device_abc"
    ),
)

# Username "dev+ice &=%€", password "s3cret/+ &=%ü€", client id "prefix é#+*./=".
CONNECT_ODD = (
    Recorded(
        "user",
        b"username=dev%2Bice+%26%3D%25%E2%82%AC&password=s3cret%2F%2B+%26%3D%25%C3%BC%E2%82%AC"
        b"&vhost=%2F&client_id=prefix+%C3%A9%23%2B%2A.%2F%3D",
    ),
    Recorded(
        "vhost",
        b"username=dev%2Bice+%26%3D%25%E2%82%AC&vhost=%2F&ip=127.0.0.1&tags="
        b"&client_id=prefix+%C3%A9%23%2B%2A.%2F%3D",
    ),
)

# Username b"dev\xff\xfe", password b"p\xff\0w", client id b"cid\xff", which are not UTF-8.
CONNECT_BYTES = (
    Recorded("user", b"username=dev%FF%FE&password=p%FF%00w&vhost=%2F&client_id=cid%FF"),
    Recorded("vhost", b"username=dev%FF%FE&vhost=%2F&ip=127.0.0.1&tags=&client_id=cid%FF"),
)

# Without a client id: RabbitMQ invents a different one each time.
CONNECT_WITHOUT_CLIENT_ID = (
    Recorded(
        "user", b"username=device_abc&password=s3cret&vhost=%2F&client_id=Tt-SY5P0lPddWA82Cc4eqg"
    ),
    Recorded(
        "vhost",
        b"username=device_abc&vhost=%2F&ip=127.0.0.1&tags=&client_id=Tt-SY5P0lPddWA82Cc4eqg",
    ),
)

# The client resumes a session (clean session false) with a subscription of quality 1 or 2.
CONNECT_AGAIN = (
    *CONNECT,
    _resource("queue", "mqtt-subscription-mooring_device_abcqos1", "configure"),
    _resource("queue", "mqtt-subscription-mooring_device_abcqos1", "read"),
)

# The client connects with clean session true while such a session exists, or is being deleted.
CONNECT_CLEAN = (
    *CONNECT,
    _resource("queue", "mqtt-subscription-mooring_device_abcqos1", "configure"),
)

# Publishes to iot/device/abc/state, with any quality.
PUBLISH = _published("iot.device.abc.state")

# To iot/device/abc/a.b/*
PUBLISH_ODD = _published("iot.device.abc.a.b.%2A")

# To iot/device/abc/a.b/*/+/#/é €&=: MQTT forbids that, and RabbitMQ asks all the same.
PUBLISH_WILDCARDS = _published("iot.device.abc.a.b.%2A.%2A.%23.%C3%A9+%E2%82%AC%26%3D")

# To iot/device/abc/ and a NUL, to b"a/\xff\xfe", to an empty topic: MQTT forbids these too.
PUBLISH_NUL = _published("iot.device.abc.%00")
PUBLISH_BYTES = _published("a.%FF%FE")
PUBLISH_EMPTY = _published("")

# Its connection is lost, and its will is published to iot/device/abc/will. RabbitMQ does not ask
# about the will when the client connects, and a client that is kicked leaves none.
WILL = _published("iot.device.abc.will")

# Subscribes to iot/device/abc/# with quality 1 or 2.
SUBSCRIBE = (
    _resource("queue", "mqtt-subscription-mooring_device_abcqos1", "configure"),
    _resource("queue", "mqtt-subscription-mooring_device_abcqos1", "read"),
    _resource("queue", "mqtt-subscription-mooring_device_abcqos1", "write"),
    _resource("exchange", "amq.topic", "read"),
    _topic("read", "iot.device.abc.%23"),
)

# The same with quality 0.
SUBSCRIBE_QUALITY_0 = (
    _resource("queue", "mqtt-subscription-mooring_device_abcqos0", "configure"),
    _resource("queue", "mqtt-subscription-mooring_device_abcqos0", "read"),
    _resource("queue", "mqtt-subscription-mooring_device_abcqos0", "write"),
    _resource("exchange", "amq.topic", "read"),
    _topic("read", "iot.device.abc.%23"),
)

# After a subscription, it subscribes to iot/device/abc/+/state and iot/device/abc/a.b/* in one
# packet: RabbitMQ begins with the last filter, and ends the connection at the first refusal.
SUBSCRIBE_MORE = (
    _topic("read", "iot.device.abc.a.b.%2A"),
    _topic("read", "iot.device.abc.%2A.state"),
)

# Then to $share/group/iot/device/abc, which RabbitMQ takes for an ordinary topic.
SUBSCRIBE_SHARED = (_topic("read", "%24share.group.iot.device.abc"),)

# Then to iot/device/abc/a/#/b: MQTT forbids that; to RabbitMQ "#" is any number of levels.
SUBSCRIBE_INSIDE = (_topic("read", "iot.device.abc.a.%23.b"),)

# Then to #
SUBSCRIBE_EVERYTHING = (_topic("read", "%23"),)

# Unsubscribes from iot/device/abc/#, to which it had subscribed with quality 0 and with quality 1,
# after two quiet seconds; without the pause RabbitMQ would not ask.
UNSUBSCRIBE = (
    _resource("queue", "mqtt-subscription-mooring_device_abcqos0", "write"),
    _resource("exchange", "amq.topic", "read"),
    _topic("read", "iot.device.abc.%23"),
    _resource("queue", "mqtt-subscription-mooring_device_abcqos1", "write"),
)


class Way(NamedTuple):
    """The requests of a version when a client connects, publishes and subscribes."""

    connect: tuple[Recorded, ...]
    publish: tuple[Recorded, ...]
    publish_odd: tuple[Recorded, ...]
    subscribe: tuple[Recorded, ...]
    subscribe_more: tuple[Recorded, ...]
    subscribe_shared: tuple[Recorded, ...]
    subscribe_everything: tuple[Recorded, ...]


WAY_3 = Way(
    CONNECT,
    PUBLISH,
    PUBLISH_ODD,
    SUBSCRIBE,
    SUBSCRIBE_MORE,
    SUBSCRIBE_SHARED,
    SUBSCRIBE_EVERYTHING,
)
WAY_4 = Way(
    connect=(
        Recorded(
            "user", b"username=device_abc&vhost=%2F&client_id=mooring_device_abc&password=s3cret"
        ),
        CONNECT[1],
    ),
    # Only once, because the MQTT plugin no longer has an AMQP channel.
    publish=PUBLISH[1:],
    publish_odd=PUBLISH_ODD[1:],
    subscribe=(
        _resource("queue", "mqtt-subscription-mooring_device_abcqos1", "configure"),
        _resource("queue", "mqtt-subscription-mooring_device_abcqos1", "write"),
        _resource("exchange", "amq.topic", "read"),
        _topic("read", "iot.device.abc.%23"),
        _resource("queue", "mqtt-subscription-mooring_device_abcqos1", "read"),
    ),
    # In the order of the packet.
    subscribe_more=SUBSCRIBE_MORE[::-1],
    # Sent to a client that uses MQTT 5, too.
    subscribe_shared=SUBSCRIBE_SHARED,
    subscribe_everything=SUBSCRIBE_EVERYTHING,
)
