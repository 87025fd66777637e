"""MQTT topics and filters: what matches, what a grant covers, and RabbitMQ's routing keys."""

from typing import Any, cast
from urllib.parse import urlencode

from paho.mqtt.client import topic_matches_sub

from chassis.errors import InvalidInput
from registry_service.administration.service_accounts.fields import _filters
from registry_service.admission.listener.dialects.asked import Asked, Unreadable
from registry_service.admission.listener.dialects.rabbitmq import EXCHANGE, OPERATIONS
from registry_service.admission.questions import Publish, Subscribe
from registry_service.topics import covers, is_filter, is_topic, matches, without_share
from tests.fuzz.given import lines

# A grant, the filter that is asked for, and a topic.
SEEDS = tuple(
    text.encode()
    for text in (
        *("a/#\na/+\na/b", "#\n$SYS/#\n$SYS/a", "+/+\n/#\n/", "+\n#\na", "a/+/c\na/b/c\na/b/c"),
        *("$share/g/a\n$share/g/a/#\na", "iot/d/1/*\niot/d/1/a*b\niot/d/1/*", "a.b\na/b\na.b"),
        *("a/#\na/#\na", "//\n+//\n//", "ä/+\nä/ö\nä/ö", "a\0b\n\n", "+a\n#/a\na#"),
    )
)
WORDS = (b"+", b"#", b"/", b"$", b"$share/", b"$SYS", b"*", b".", b"\0", b"\xc3\xa4", b"//", b"/#")
FORM = {b"content-type": b"application/x-www-form-urlencoded"}


def attempt(data: bytes) -> None:
    grant, wanted, topic = lines(data, 3)
    if covers(grant, wanted):
        assert is_filter(grant)
        assert is_filter(wanted)
        assert not matches(wanted, topic) or matches(grant, topic)
    assert not is_filter(wanted) or covers(wanted, wanted) or wanted == ""
    if is_filter(wanted) and is_topic(topic):
        assert matches(wanted, topic) == topic_matches_sub(wanted, topic)
        assert matches(wanted, topic) == covers(wanted, topic)
    else:
        assert not matches(wanted, topic)
    shared = without_share(wanted)
    assert shared == wanted or wanted.startswith("$share/")
    try:
        assert set(_filters("subscribe", [grant, wanted])) == {grant, wanted}
    except InvalidInput:
        assert not (is_filter(grant) and is_filter(wanted)) or "$share/" in grant + wanted
    _attempt_keys(wanted, topic)


def _attempt_keys(wanted: str, topic: str) -> None:
    """A topic without dots is the same after RabbitMQ has translated it."""
    if "." in wanted + topic:
        return
    published = _asked("write", topic.replace("/", "."))
    assert published is None or (isinstance(published, Publish) and published.topic == topic)
    if is_topic(topic):
        assert published is not None
    if not is_filter(wanted) or "*" in wanted:
        return
    subscribed = _asked("read", wanted.replace("/", ".").replace("+", "*"))
    assert isinstance(subscribed, Subscribe)
    assert subscribed.topic_filter == wanted


def _asked(permission: str, key: str) -> Publish | Subscribe | None:
    fields = {
        "username": "u",
        "vhost": "/",
        "resource": "topic",
        "name": EXCHANGE,
        "permission": permission,
        "routing_key": key,
        "variable_map.client_id": "c",
    }
    try:
        found = OPERATIONS["topic"].read(Asked(FORM, b"", urlencode(fields).encode()))
    except Unreadable:
        return None
    return cast("Any", found[0]) if found else None
