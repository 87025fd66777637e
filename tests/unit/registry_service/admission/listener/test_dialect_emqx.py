"""EMQX 5: the examples of its documentation are understood, and answered as documented.

The requests are those of https://docs.emqx.com/en/emqx/latest/access-control/authn/http.html,
…/authn/acl.html, …/authz/http.html and …/data-integration/webhook.html, with the placeholders of
these pages.
"""

import json
from typing import Any

import pytest
from msgspec import structs

from registry_service.admission.listener.dialects.asked import Asked, DialectReply, Unreadable
from registry_service.admission.listener.dialects.emqx import OPERATIONS
from registry_service.admission.questions import (
    UNREADABLE,
    Connect,
    Grants,
    Notice,
    Publish,
    Question,
    Subscribe,
    Verdict,
)

ALLOWED = Verdict(is_allowed=True)
REFUSED = Verdict(is_allowed=False, reason="TOPIC_NOT_ALLOWED")
OWN = "iot/device/abc123/#"
NOTHING_ELSE = [
    {"permission": "deny", "action": "all", "topic": "#"},
    {"permission": "deny", "action": "all", "topic": "$SYS/#"},
]

# body { username = "${username}", password = "${password}", clientid = "${clientid}" }
AUTHENTICATE = {"username": "device_abc123", "password": "secret", "clientid": "emqx_c"}
# body { username, clientid, topic = "${topic}", action = "${action}" }
AUTHORIZE = {
    "username": "device_abc123",
    "clientid": "emqx_c",
    "topic": "iot/device/abc123/x",
    "action": "publish",
}
# As printed on the page about webhooks.
CONNECTED = (
    b'{"username":"undefined","timestamp":1694681417717,"sockname":"127.0.0.1:1883",'
    b'"receive_maximum":32,"proto_ver":5,"proto_name":"MQTT","peername":"127.0.0.1:61003",'
    b'"node":"emqx@127.0.0.1","mountpoint":"undefined","metadata":{"rule_id":"my-webhook_WH_D"},'
    b'"keepalive":30,"is_bridge":false,"expiry_interval":0,"event":"client.connected",'
    b'"connected_at":1694681417714,"conn_props":{"User-Property":{},'
    b'"Request-Problem-Information":1},"clientid":"emqx_c","clean_start":true}'
)
DISCONNECTED = (
    b'{"username":"undefined","timestamp":1694681417729,"sockname":"127.0.0.1:1883",'
    b'"reason":"normal","proto_ver":5,"proto_name":"MQTT","peername":"127.0.0.1:61003",'
    b'"node":"emqx@127.0.0.1","metadata":{"rule_id":"my-webhook_WH_D"},'
    b'"event":"client.disconnected","disconnected_at":1694681417729,'
    b'"disconn_props":{"User-Property":{}},"clientid":"emqx_c"}'
)
PUBLISHED = (
    b'{"username":"undefined","topic":"t/1","timestamp":1694681417728,"qos":0,'
    b'"publish_received_at":1694681417728,"pub_props":{"User-Property":{}},'
    b'"peerhost":"127.0.0.1","payload":"{ \\"msg\\": \\"Hello Webhook\\" }",'
    b'"node":"emqx@127.0.0.1","metadata":{"rule_id":"my-webhook_WH_D"},'
    b'"id":"0006054DC3E940F8F445000038A60002","flags":{"retain":false,"dup":false},'
    b'"event":"message.publish","clientid":"emqx_c"}'
)


def asked(body: object) -> Asked:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Asked({b"content-type": b"application/json"}, b"", encoded)


def read(operation: str, body: object) -> Any:
    return OPERATIONS[operation].read(asked(body))


def answer(operation: str, *verdicts: Verdict) -> DialectReply:
    return OPERATIONS[operation].answer(asked({}), verdicts)


def answered(operation: str, *verdicts: Verdict) -> Any:
    reply = answer(operation, *verdicts)
    # With any other status or content type EMQX would ask the next authenticator.
    assert (reply.status, reply.content_type) == (200, b"application/json")
    return json.loads(reply.body)


def test_a_connecting_client_is_read() -> None:
    assert read("authenticate", AUTHENTICATE) == [Connect("device_abc123", "secret", "emqx_c")]
    for peerhost, address in (("192.0.2.1", "192.0.2.1"), (None, ""), ("undefined", "undefined")):
        [question] = read("authenticate", AUTHENTICATE | {"peerhost": peerhost})
        assert isinstance(question, Connect)
        assert question.address == address


@pytest.mark.parametrize(
    ("action", "topic", "question"),
    [
        ("publish", "a/b", Publish("device_abc123", "emqx_c", "a/b")),
        ("subscribe", "a/+", Subscribe("device_abc123", "emqx_c", "a/+")),
        # EMQX removes the share; a filter that still has one is not a shared subscription.
        ("subscribe", "$share/g/a", Subscribe("device_abc123", "emqx_c", "$share/g/a")),
    ],
)
def test_an_acting_client_is_read(action: str, topic: str, question: Question) -> None:
    body = AUTHORIZE | {"action": action, "topic": topic, "qos": "1", "retain": "false"}
    assert read("authorize", body) == [question]


def test_an_admitted_client_gets_its_rules() -> None:
    verdict = Verdict(
        is_allowed=True,
        grants=Grants(publish=(OWN, "a/b"), subscribe=(OWN,)),
        expires_at=1_654_254_601,
    )
    assert answered("authenticate", verdict) == {
        "result": "allow",
        "is_superuser": False,
        "expire_at": 1_654_254_601,
        "acl": [
            {"permission": "allow", "action": "publish", "topic": OWN},
            {"permission": "allow", "action": "publish", "topic": "a/b"},
            {"permission": "allow", "action": "subscribe", "topic": OWN},
            *NOTHING_ELSE,
        ],
    }


@pytest.mark.parametrize("grants", [None, Grants((), ())])
def test_without_grants_nothing_is_allowed(grants: Grants | None) -> None:
    assert answered("authenticate", Verdict(is_allowed=True, grants=grants)) == {
        "result": "allow",
        "is_superuser": False,
        "acl": NOTHING_ELSE,
    }


@pytest.mark.parametrize("topic", ["a/${username}", "${clientid}/#", "eq a/#"])
def test_filters_that_emqx_would_read_differently_are_not_granted(topic: str) -> None:
    verdict = Verdict(is_allowed=True, grants=Grants((topic, OWN), (topic,)))
    assert [rule["topic"] for rule in answered("authenticate", verdict)["acl"]] == [
        OWN,
        "#",
        "$SYS/#",
    ]


def matches(topic: str, rule: str) -> bool:
    """emqx_topic:match/2 on the words of the requested filter, where "+" and "#" are words too."""
    if rule.startswith("eq "):
        return topic == rule.removeprefix("eq ")
    asked, levels = topic.split("/"), rule.split("/")
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index == len(asked) or level not in ("+", asked[index]):
            return False
    return len(asked) == len(levels)


@pytest.mark.parametrize(
    ("granted", "asked", "is_allowed"),
    [
        (["a/+"], "a/x", True),
        (["a/+"], "a/+", True),
        (["a/+"], "a/#", False),
        (["+"], "x", True),
        (["+"], "#", False),
        (["a/+/b"], "a/x/b", True),
        (["a/+/b"], "a/#", False),
        # Too many filters would have to be denied.
        (["a/+/+"], "a/x/#", False),
        (["a/+/+"], "a/x/y", False),
        # A filter that is granted itself is not denied because of another one.
        (["a/+", "a/#"], "a/#", True),
        (["a/+", "b/+"], "b/x", True),
        (["a/+", "b/+"], "b/#", False),
    ],
)
def test_a_plus_does_not_match_a_hash(granted: list[str], asked: str, is_allowed: bool) -> None:
    verdict = Verdict(is_allowed=True, grants=Grants((), tuple(granted)))
    rules = answered("authenticate", verdict)["acl"]
    first = next(rule for rule in rules if matches(asked, rule["topic"]))
    assert first["action"] in ("subscribe", "all")
    assert (first["permission"] == "allow") == is_allowed


def test_a_plus_may_be_published_to_as_it_is_granted() -> None:
    verdict = Verdict(is_allowed=True, grants=Grants(("a/+/+",), ()))
    assert answered("authenticate", verdict)["acl"] == [
        {"permission": "allow", "action": "publish", "topic": "a/+/+"},
        *NOTHING_ELSE,
    ]


def test_the_authorizer_allows() -> None:
    assert answered("authorize", ALLOWED) == {"result": "allow"}


@pytest.mark.parametrize("operation", ["authenticate", "authorize"])
@pytest.mark.parametrize("verdicts", [[], [REFUSED], [UNREADABLE]])
def test_a_denial_is_answered(operation: str, verdicts: list[Verdict]) -> None:
    assert answered(operation, *verdicts) == {"result": "deny"}


def test_notices_of_connections_are_read() -> None:
    came = Notice("undefined", "emqx_c", True, peer="127.0.0.1:61003", began_at=1_694_681_417_714)
    left = Notice("undefined", "emqx_c", False, peer="127.0.0.1:61003", ended_at=1_694_681_417_729)
    assert read("event", CONNECTED) == [came]
    assert read("event", DISCONNECTED) == [left]
    # Newer versions send when the ended connection began.
    sent = DISCONNECTED.replace(b"{", b'{"connected_at":1694681417714,', 1)
    assert read("event", sent) == [structs.replace(left, began_at=1_694_681_417_714)]
    for reason in ("takenover", "discarded"):
        sent = DISCONNECTED.replace(b'"reason":"normal"', f'"reason":"{reason}"'.encode())
        assert read("event", sent) == [structs.replace(left, is_replaced=True)]


@pytest.mark.parametrize("event", ["client.connected", "client.disconnected"])
@pytest.mark.parametrize("said", [None, "undefined", "", -1, 0, 1e300, "1694681417714"])
def test_an_invalid_time_or_address_is_ignored(event: str, said: object) -> None:
    """For example, a rule selects fields that the event, or this version of EMQX, does not have."""
    times = dict.fromkeys(("connected_at", "disconnected_at", "timestamp"), said)
    body = {"event": event, "clientid": "c", "username": "u", "peername": None, **times}
    assert read("event", body) == [Notice("u", "c", event == "client.connected")]
    assert read("event", {"event": event, "clientid": "c", "username": "u"}) == read("event", body)
    timed = read("event", body | {"timestamp": 1_694_681_417_714})
    assert 1_694_681_417_714 in (timed[0].began_at, timed[0].ended_at)


@pytest.mark.parametrize(
    ("said", "is_kept"),
    [("0", False), ("7200", True), ("4294967295", True), ('"undefined"', False), ("null", False)],
)
def test_a_session_may_outlive_its_connection(said: str, is_kept: bool) -> None:
    sent = CONNECTED.replace(b'"expiry_interval":0', f'"expiry_interval":{said}'.encode())
    [came] = read("event", sent)
    assert (came.is_online, came.is_kept) == (True, is_kept)


def test_other_events_are_ignored() -> None:
    assert read("event", PUBLISHED) == []


def test_events_are_never_sent_again() -> None:
    for verdicts in ([], [UNREADABLE]):
        assert answered("event", *verdicts) == {}


@pytest.mark.parametrize("field", sorted(AUTHORIZE))
@pytest.mark.parametrize("wrong", [None, 1, True, 1.5, [], ["a"], {}])
def test_a_field_of_the_wrong_type_is_unreadable(field: str, wrong: object) -> None:
    with pytest.raises(Unreadable):
        read("authorize", AUTHORIZE | {field: wrong})


@pytest.mark.parametrize("action", ["", "all", "PUBLISH", "Subscribe", "pub"])
def test_an_unknown_action_is_unreadable(action: str) -> None:
    with pytest.raises(Unreadable):
        read("authorize", AUTHORIZE | {"action": action})


@pytest.mark.parametrize("client_id", [".", ".."])
def test_a_client_id_that_a_url_drops_is_unreadable(client_id: str) -> None:
    with pytest.raises(Unreadable):
        read("authenticate", AUTHENTICATE | {"clientid": client_id})
