"""RabbitMQ: requests of rabbitmq_auth_backend_http are understood, and answered as documented.

https://github.com/rabbitmq/rabbitmq-server/tree/main/deps/rabbitmq_auth_backend_http has the
parameters, and says that MQTT clients add `client_id` and `variable_map`.
https://www.rabbitmq.com/docs/mqtt says which queues the MQTT plugin uses for a client.
"""

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_service.admission.listener.dialects.asked import Asked, Unreadable
from registry_service.admission.listener.dialects.rabbitmq import OPERATIONS
from registry_service.admission.questions import (
    UNREADABLE,
    Connect,
    Publish,
    Question,
    Subscribe,
    Use,
    Verdict,
)
from registry_service.topics import covers, is_filter, is_topic, matches

OWN = "iot/device/abc123/#"
ALLOWED = Verdict(is_allowed=True)
REFUSED = Verdict(is_allowed=False, reason="TOPIC_NOT_ALLOWED")

USER = {
    "username": "device_abc123",
    "vhost": "/",
    "client_id": "mooring-abc123",
    "password": "se cret",
}
VHOST = {
    "username": "device_abc123",
    "vhost": "/",
    "ip": "127.0.0.1",
    "tags": "",
    "client_id": "mooring-abc123",
}
RESOURCE = {
    "username": "device_abc123",
    "vhost": "/",
    "resource": "queue",
    "name": "mqtt-subscription-mooring-abc123qos1",
    "permission": "configure",
    "tags": "",
    "client_id": "mooring-abc123",
}
TOPIC = {
    "username": "device_abc123",
    "vhost": "/",
    "resource": "topic",
    "name": "amq.topic",
    "permission": "write",
    "tags": "",
    "routing_key": "iot.device.abc123.x",
    "variable_map.client_id": "mooring-abc123",
    "variable_map.username": "device_abc123",
    "variable_map.vhost": "/",
}
METHODS = ("get", "post")
IDENTITY = ("device_abc123", "mooring-abc123")


def asked(fields: dict[str, str], method: str = "post") -> Asked:
    encoded = urlencode(fields).encode()
    if method == "get":
        return Asked({}, encoded, b"")
    return Asked({b"content-type": b"application/x-www-form-urlencoded"}, b"", encoded)


def read(operation: str, fields: dict[str, str], method: str = "post") -> object:
    return OPERATIONS[operation].read(asked(fields, method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("operation", "fields", "question"),
    [
        ("user", USER, Connect("device_abc123", "se cret", "mooring-abc123")),
        ("vhost", VHOST, Use(*IDENTITY)),
        ("resource", RESOURCE, Use(*IDENTITY)),
        ("topic", TOPIC, Publish(*IDENTITY, "iot/device/abc123/x")),
        (
            "topic",
            TOPIC | {"permission": "read", "routing_key": "iot.device.abc123.#"},
            Subscribe(*IDENTITY, OWN),
        ),
    ],
)
def test_requests_about_an_mqtt_client_are_read(
    method: str, operation: str, fields: dict[str, str], question: Question
) -> None:
    assert read(operation, fields, method) == [question]


def test_a_vhost_needs_no_client_id() -> None:
    fields = {"username": "device_abc123", "vhost": "/", "ip": "127.0.0.1"}
    assert read("vhost", fields) == [Use("device_abc123", "")]


@pytest.mark.parametrize("missing", ["username", "password", "client_id"])
def test_a_client_of_another_protocol_is_denied(missing: str) -> None:
    with pytest.raises(Unreadable):
        read("user", {name: value for name, value in USER.items() if name != missing})


@pytest.mark.parametrize("permission", ["configure", "write", "read"])
@pytest.mark.parametrize(
    ("resource", "name", "permissions"),
    [
        ("exchange", "amq.topic", ("write", "read")),
        ("queue", "mqtt-subscription-mooring-abc123qos0", ("configure", "write", "read")),
        ("queue", "mqtt-subscription-mooring-abc123qos1", ("configure", "write", "read")),
        ("queue", "mqtt-will-mooring-abc123", ("configure", "write", "read")),
        ("queue", "mqtt-subscription-mooring-otherqos1", ()),
        ("queue", "mqtt-subscription-mooring-abc123", ()),
        ("queue", "mqtt-subscription-mooring-abc123qos2", ()),
        ("queue", "mqtt-will-mooring-abc1234", ()),
        ("queue", "mqtt-subscription-", ()),
        ("queue", "mqtt-will-", ()),
        ("queue", "orders", ()),
        ("queue", "amq.topic", ()),
        ("queue", "", ()),
        ("exchange", "amq.default", ()),
        ("exchange", "", ()),
        ("exchange", "amq.direct", ()),
        ("exchange", "mqtt-subscription-mooring-abc123qos1", ()),
        ("topic", "amq.topic", ()),
        ("", "amq.topic", ()),
    ],
)
def test_only_the_mqtt_plugins_queues_of_this_client_are_allowed(
    resource: str, name: str, permission: str, permissions: tuple[str, ...]
) -> None:
    fields = RESOURCE | {"resource": resource, "name": name, "permission": permission}
    expected = [Use(*IDENTITY)] if permission in permissions else []
    assert read("resource", fields) == expected


@pytest.mark.parametrize("name", ["mqtt-subscription-qos0", "mqtt-subscription-qos1", "mqtt-will-"])
def test_without_a_client_id_no_queue_is_allowed(name: str) -> None:
    assert read("resource", RESOURCE | {"name": name, "client_id": ""}) == []
    without_id = {key: value for key, value in RESOURCE.items() if key != "client_id"}
    assert read("resource", without_id | {"name": name}) == []


@pytest.mark.parametrize("name", ["amq.direct", "amq.default", "", "orders"])
def test_topics_of_other_exchanges_are_refused(name: str) -> None:
    assert read("topic", TOPIC | {"name": name}) == []


@pytest.mark.parametrize("operation", ["resource", "topic"])
@pytest.mark.parametrize("permission", ["", "admin", "READ", "write,read"])
def test_an_unknown_permission_is_unreadable(operation: str, permission: str) -> None:
    fields = RESOURCE if operation == "resource" else TOPIC
    with pytest.raises(Unreadable):
        read(operation, fields | {"permission": permission})


# Requests of an MQTT client, and whether RabbitMQ's reading of them is within its own topics.
KEYS = [
    ("iot/device/abc123/x", True, True),
    ("iot/device/abc123", True, True),
    ("iot/device/abc123/#", False, True),
    # A client cannot publish there; a star in a routing key is a letter.
    ("iot/device/abc123/+/x", True, True),
    # A level with a dot is several levels.
    ("iot/device/abc123/a.b", True, True),
    ("iot.device.abc123.x", True, True),
    # A star is a letter in the topic of a message, and inside a level of a subscription.
    ("iot/device/abc123/*", True, True),
    ("iot/device/abc123/a*", True, True),
    ("iot/device/abc123/a*b", True, True),
    ("iot/device/abc123/**", True, True),
    ("iot/device/abc123/*/%u/$x", True, True),
    ("iot/device/abc*/x", False, False),
    ("iot/device/abc123/a#", False, False),
    ("iot/device/abc123/#/x", False, False),
    ("iot/device/*/x", False, False),
    ("iot/device/#/x", False, False),
    ("iot/device/other.abc123/#", False, False),
    ("*/*/*/#", False, False),
    ("*", False, False),
    ("#", False, False),
    ("iot/#", False, False),
    ("iot/device/#", False, False),
    ("iot/device/abc123#", False, False),
    ("$SYS/#", False, False),
    # There are no shared subscriptions: such a filter is an ordinary topic.
    ("$share/group/iot/device/abc123/#", False, False),
    ("", False, False),
]


@pytest.mark.parametrize(("mqtt", "may_publish", "may_subscribe"), KEYS)
def test_a_star_or_a_hash_never_widens_the_allowed_topics(
    mqtt: str, may_publish: bool, may_subscribe: bool
) -> None:
    key = mqtt.replace("/", ".").replace("+", "*")
    (write,) = OPERATIONS["topic"].read(asked(TOPIC | {"routing_key": key}))
    (seen,) = OPERATIONS["topic"].read(asked(TOPIC | {"routing_key": key, "permission": "read"}))
    assert isinstance(write, Publish)
    assert isinstance(seen, Subscribe)
    assert matches(OWN, write.topic) is may_publish
    assert covers(OWN, seen.topic_filter) is may_subscribe


@pytest.mark.parametrize("key", ["iot/device/abc123/x", "iot.device.abc123/x", "/", "./."])
def test_a_key_that_mqtt_cannot_have_made_is_refused(key: str) -> None:
    assert read("topic", TOPIC | {"routing_key": key}) == []


def amqp_matches(pattern: list[str], words: list[str]) -> bool:
    """A topic exchange's match (AMQP 0-9-1, section 3.1.3.3): "*" is one word, "#" any number."""
    if not pattern:
        return not words
    first, *others = pattern
    if first == "#":
        return any(amqp_matches(others, words[n:]) for n in range(len(words) + 1))
    return bool(words) and first in ("*", words[0]) and amqp_matches(others, words[1:])


WORDS = st.sampled_from(["iot", "device", "abc123", "other", "*", "#", "", "x", "x*", "$SYS"])
PREFIXES = st.sampled_from(["", "iot.device.", "iot.device.abc123."])
PATTERNS = st.builds(str.__add__, PREFIXES, st.lists(WORDS, min_size=1, max_size=5).map(".".join))
PLAIN = st.lists(
    st.sampled_from(["iot", "device", "abc123", "other", "", "x", "$SYS"]), min_size=1, max_size=6
)


@given(PATTERNS, PREFIXES, PLAIN)
def test_an_allowed_subscription_gets_only_its_own_topics_in_rabbitmq(
    pattern: str, prefix: str, words: list[str]
) -> None:
    (question,) = OPERATIONS["topic"].read(
        asked(TOPIC | {"routing_key": pattern, "permission": "read"})
    )
    assert isinstance(question, Subscribe)
    key = (prefix + ".".join(words)).split(".")
    if covers(OWN, question.topic_filter) and amqp_matches(pattern.split("."), key):
        assert amqp_matches(["iot", "device", "abc123", "#"], key)


@given(st.text(st.characters(exclude_characters="/", codec="utf-8"), max_size=20))
def test_a_topic_to_publish_has_no_wildcard(key: str) -> None:
    (question,) = OPERATIONS["topic"].read(asked(TOPIC | {"routing_key": key}))
    assert isinstance(question, Publish)
    assert not (is_topic(question.topic) and set("+#") & set(key))
    assert is_filter(question.topic) or not is_topic(question.topic)
    # Words are compared literally: RabbitMQ routes to exactly the allowed key.
    assert matches(OWN, question.topic) is (
        is_topic(question.topic) and amqp_matches(["iot", "device", "abc123", "#"], key.split("."))
    )


@given(PREFIXES, st.lists(WORDS, min_size=1, max_size=5))
def test_every_own_topic_may_be_published_to(prefix: str, words: list[str]) -> None:
    """Letters with a special meaning elsewhere are allowed, except MQTT's own wildcards."""
    key = prefix + ".".join(words)
    (question,) = OPERATIONS["topic"].read(asked(TOPIC | {"routing_key": key}))
    assert isinstance(question, Publish)
    is_own = amqp_matches(["iot", "device", "abc123", "#"], key.split("."))
    assert matches(OWN, question.topic) is (is_own and "#" not in key)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize(
    ("verdicts", "word"),
    [([ALLOWED], b"allow"), ([REFUSED], b"deny"), ([UNREADABLE], b"deny"), ([], b"deny")],
)
def test_answers_are_one_word(operation: str, verdicts: list[Verdict], word: bytes) -> None:
    reply = OPERATIONS[operation].answer(asked({}), verdicts)
    assert (reply.status, reply.content_type, reply.body) == (200, b"text/plain", word)


@pytest.mark.parametrize(
    "query",
    [
        b"username=a&password=b&client_id=c&username=d",
        b"username=%ff&password=b&client_id=c",
        b"username=%ED%A0%80&password=b&client_id=c",
        b"username=%00&password=b&client_id=c",
        "username=ü&password=b&client_id=c".encode(),
        b"username=a&password=b",
        b"username=a&password=b&client_id=c" + b"&ip=" * 200,
        b"username=a;password=b;client_id=c",
    ],
)
def test_an_invalid_form_is_unreadable(query: bytes) -> None:
    for request in (
        Asked({}, query, b""),
        Asked({b"content-type": b"application/x-www-form-urlencoded"}, b"", query),
    ):
        with pytest.raises(Unreadable):
            OPERATIONS["user"].read(request)


def test_a_body_needs_the_content_type_of_a_form() -> None:
    for content_type in (b"application/json", b"text/plain", b""):
        with pytest.raises(Unreadable):
            OPERATIONS["user"].read(
                Asked({b"content-type": content_type}, b"", urlencode(USER).encode())
            )


@pytest.mark.parametrize(
    ("operation", "fields"),
    [("user", USER), ("vhost", VHOST), ("resource", RESOURCE), ("topic", TOPIC)],
)
def test_only_one_virtual_host_is_for_devices(operation: str, fields: dict[str, str]) -> None:
    other = {**fields, "vhost": "other"}
    for method in METHODS:
        assert read(operation, fields, method)
        with pytest.raises(Unreadable):
            read(operation, other, method)
    form = {b"content-type": b"application/x-www-form-urlencoded"}
    at_other = Asked(form, b"vhost=other", urlencode(other).encode())
    assert OPERATIONS[operation].read(at_other)
    for query in (b"vhost=/", b"other=1", b"vhost=a&vhost=b", b"%ff"):
        with pytest.raises(Unreadable):
            OPERATIONS[operation].read(Asked(form, query, urlencode(other).encode()))
