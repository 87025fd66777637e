"""VerneMQ's webhooks: the examples of its documentation are understood, and answered as documented.

https://docs.vernemq.com/plugin-development/webhookplugins has the payloads and answers. The options
of MQTT 5 subscriptions are not on that page; VerneMQ 2 sends them like this.
"""

import json
from typing import Any

import pytest

from registry_service.admission.listener.dialects.asked import Asked, DialectReply, Unreadable
from registry_service.admission.listener.dialects.vernemq import OPERATIONS
from registry_service.admission.questions import (
    UNREADABLE,
    Connect,
    Notice,
    Publish,
    Question,
    Subscribe,
    Verdict,
)

WEBHOOK = OPERATIONS["webhook"]
ALLOWED = Verdict(is_allowed=True)
REFUSED = Verdict(is_allowed=False, reason="TOPIC_NOT_ALLOWED")

PUBLISH = {
    "username": "username",
    "client_id": "clientid",
    "mountpoint": "",
    "qos": 1,
    "topic": "a/b",
    "payload": "hello",
    "retain": False,
}
SUBSCRIBE = {
    "client_id": "clientid",
    "mountpoint": "",
    "username": "username",
    "topics": [{"topic": "a/b", "qos": 1}, {"topic": "c/d", "qos": 2}],
}
REGISTER = {
    "peer_addr": "127.0.0.1",
    "peer_port": 8888,
    "username": "username",
    "password": "password",
    "mountpoint": "",
    "client_id": "clientid",
    "clean_session": False,
}
REGISTER_M5 = {
    "peer_addr": "127.0.0.1",
    "peer_port": 8888,
    "mountpoint": "",
    "client_id": "client-id",
    "username": "username",
    "password": "password",
    "clean_start": True,
    "properties": {},
}
OPTIONS = {"no_local": False, "rap": True, "retain_handling": "send_retain"}
SUBSCRIBE_M5 = {
    "username": "username",
    "mountpoint": "",
    "client_id": "client-id",
    "topics": [
        {"topic": "test/topic", "qos": 1, **OPTIONS},
        {"topic": "$share/group/test/#", "qos": 0, **OPTIONS},
    ],
    "properties": {"p_subscription_id": [1, 2, 3]},
}
ON_REGISTER = {
    "peer_addr": "127.0.0.1",
    "peer_port": 8888,
    "username": "username",
    "mountpoint": "",
    "client_id": "clientid",
}
PEER = "127.0.0.1:8888"
ON_CLIENT = {"client_id": "clientid", "mountpoint": ""}

HOOKS: list[tuple[str, object, list[Question | Notice]]] = [
    ("auth_on_register", REGISTER, [Connect("username", "password", "clientid", PEER)]),
    ("auth_on_register_m5", REGISTER_M5, [Connect("username", "password", "client-id", PEER)]),
    ("auth_on_publish", PUBLISH, [Publish("username", "clientid", "a/b")]),
    ("auth_on_publish_m5", PUBLISH | {"properties": {}}, [Publish("username", "clientid", "a/b")]),
    (
        "auth_on_subscribe",
        SUBSCRIBE,
        [Subscribe("username", "clientid", "a/b"), Subscribe("username", "clientid", "c/d")],
    ),
    (
        "auth_on_subscribe_m5",
        SUBSCRIBE_M5,
        [
            Subscribe("username", "client-id", "test/topic"),
            Subscribe("username", "client-id", "test/#"),
        ],
    ),
    ("on_register", ON_REGISTER, [Notice("username", "clientid", True, peer=PEER)]),
    (
        "on_register_m5",
        ON_REGISTER | {"properties": {}},
        [Notice("username", "clientid", True, peer=PEER)],
    ),
    ("on_register", ON_REGISTER | {"username": None}, [Notice("", "clientid", True, peer=PEER)]),
    ("on_client_wakeup", ON_CLIENT, [Notice("", "clientid", True)]),
    ("on_client_offline", ON_CLIENT, [Notice("", "clientid", False, is_kept=True)]),
    ("on_client_gone", ON_CLIENT, [Notice("", "clientid", False)]),
]
QUESTIONS = sorted({hook for hook, _, _ in HOOKS if hook.startswith("auth_")})
NOTICES = sorted({hook for hook, _, _ in HOOKS if not hook.startswith("auth_")})


def asked(hook: str, body: object) -> Asked:
    headers = {b"content-type": b"application/json", b"vernemq-hook": hook.encode()}
    return Asked(headers, b"", json.dumps(body).encode())


def answered(reply: DialectReply) -> Any:
    # VerneMQ takes any other status or content type for an error.
    assert (reply.status, reply.content_type) == (200, b"application/json")
    return json.loads(reply.body)


@pytest.mark.parametrize(("hook", "body", "found"), HOOKS)
def test_hooks(hook: str, body: object, found: list[Question | Notice]) -> None:
    assert WEBHOOK.read(asked(hook, body)) == found


@pytest.mark.parametrize("hook", QUESTIONS)
def test_an_allowed_question_is_ok(hook: str) -> None:
    reply = WEBHOOK.answer(asked(hook, {}), [ALLOWED])
    assert answered(reply) == {"result": "ok"}


@pytest.mark.parametrize("hook", [*QUESTIONS, "", "on_deliver", "auth_on_everything"])
@pytest.mark.parametrize("verdicts", [[], [REFUSED], [REFUSED, REFUSED], [UNREADABLE]])
def test_a_denied_question_is_an_error(hook: str, verdicts: list[Verdict]) -> None:
    reply = WEBHOOK.answer(asked(hook, {}), verdicts)
    assert answered(reply) == {"result": {"error": "not_allowed"}}
    assert not reply.headers


@pytest.mark.parametrize("hook", QUESTIONS)
def test_only_allowed_publications_are_cached_and_not_for_long(hook: str) -> None:
    headers = dict(WEBHOOK.answer(asked(hook, {}), [ALLOWED]).headers)
    if hook.startswith("auth_on_publish"):
        assert headers == {b"cache-control": b"max-age=3"}
    else:
        assert not headers


def test_some_topics_of_several() -> None:
    assert answered(WEBHOOK.answer(asked("auth_on_subscribe", SUBSCRIBE), [ALLOWED, REFUSED])) == {
        "result": "ok",
        "topics": [{"topic": "a/b", "qos": 1}, {"topic": "c/d", "qos": 128}],
    }


def test_some_topics_of_several_with_their_options() -> None:
    request = asked("auth_on_subscribe_m5", SUBSCRIBE_M5)
    assert answered(WEBHOOK.answer(request, [REFUSED, ALLOWED])) == {
        "result": "ok",
        "modifiers": {
            "topics": [
                {"topic": "test/topic", "qos": 135},
                # As the client sent it, because VerneMQ itself handles the share.
                {"topic": "$share/group/test/#", "qos": 0, **OPTIONS},
            ]
        },
    }


@pytest.mark.parametrize("hook", NOTICES)
def test_notices_are_always_accepted(hook: str) -> None:
    for verdicts in ([], [UNREADABLE]):
        assert answered(WEBHOOK.answer(asked(hook, {}), verdicts)) == {}


@pytest.mark.parametrize("field", ["username", "password"])
@pytest.mark.parametrize("hook", ["auth_on_register", "auth_on_register_m5"])
def test_a_hook_without_a_required_field_is_unreadable(hook: str, field: str) -> None:
    with pytest.raises(Unreadable):
        WEBHOOK.read(asked(hook, REGISTER | {field: None}))


def test_a_subscription_without_topics_is_unreadable() -> None:
    request = asked("auth_on_subscribe", SUBSCRIBE | {"topics": []})
    assert WEBHOOK.read(request) == []
    assert answered(WEBHOOK.answer(request, [])) == {"result": {"error": "not_allowed"}}


@pytest.mark.parametrize(
    "topics",
    [
        None,
        {},
        "a/b",
        ["a/b"],
        [["a/b", 1]],
        [{"topic": "a/b"}],
        [{"topic": "a/b", "qos": 3}],
        [{"topic": "a/b", "qos": "1"}],
        [{"topic": 1, "qos": 1}],
        [{"topic": "a/b", "qos": 1}, None],
    ],
)
def test_topics_of_the_wrong_type_are_unreadable(topics: object) -> None:
    with pytest.raises(Unreadable):
        WEBHOOK.read(asked("auth_on_subscribe", SUBSCRIBE | {"topics": topics}))


@pytest.mark.parametrize(
    "hook",
    ["", "on_deliver", "on_publish", "on_client_online", "auth_on_register_m6", "AUTH_ON_REGISTER"],
)
def test_a_hook_that_is_not_used_is_unreadable(hook: str) -> None:
    with pytest.raises(Unreadable):
        WEBHOOK.read(asked(hook, REGISTER | SUBSCRIBE | PUBLISH))
