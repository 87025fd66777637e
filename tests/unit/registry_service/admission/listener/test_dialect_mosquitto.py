"""mosquitto-go-auth's http backend: its README's examples are understood and answered as
documented.

https://github.com/iegomez/mosquitto-go-auth#http: the params modes json and form, and the response
modes status and json. The values of `acc` are those of
https://mosquitto.org/api/files/mosquitto_broker-h.html.
"""

import json
from urllib.parse import urlencode

import pytest

from registry_service.admission.listener.dialects.asked import Asked, Unreadable
from registry_service.admission.listener.dialects.mosquitto import OPERATIONS
from registry_service.admission.questions import (
    UNREADABLE,
    Connect,
    Publish,
    Question,
    Receive,
    Subscribe,
    Use,
    Verdict,
)

ALLOWED = Verdict(is_allowed=True)
REFUSED = Verdict(is_allowed=False, reason="TOPIC_NOT_ALLOWED")

USER: dict[str, object] = {"username": "user", "password": "pass", "clientid": "clientid"}
SUPERUSER: dict[str, object] = {"username": "user"}
ACL: dict[str, object] = {"username": "user", "clientid": "clientid", "topic": "topic", "acc": 2}

MODES = ("json", "form")


def asked(mode: str, body: dict[str, object]) -> Asked:
    if mode == "json":
        return Asked({b"content-type": b"application/json"}, b"", json.dumps(body).encode())
    content_type = b"application/x-www-form-urlencoded"
    return Asked({b"content-type": content_type}, b"", urlencode(body).encode())


@pytest.mark.parametrize("mode", MODES)
def test_a_connecting_client_is_read(mode: str) -> None:
    read = OPERATIONS["user"].read(asked(mode, USER))
    assert read == [Connect("user", "pass", "clientid")]


@pytest.mark.parametrize("mode", MODES)
def test_encoded_values_of_a_form_are_decoded(mode: str) -> None:
    odd = "ü \U0001f680&=+%2F;\n"
    body: dict[str, object] = {"username": odd, "password": odd, "clientid": odd}
    assert OPERATIONS["user"].read(asked(mode, body)) == [Connect(odd, odd, odd)]


@pytest.mark.parametrize("mode", MODES)
def test_no_client_is_a_superuser(mode: str) -> None:
    request = asked(mode, SUPERUSER)
    read = OPERATIONS["superuser"].read(request)
    assert read == []
    assert OPERATIONS["superuser"].answer(request, []).status == 403


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("acc", "topic", "questions"),
    [
        (1, "a/b", [Receive("user", "clientid", "a/b")]),
        (2, "a/b", [Publish("user", "clientid", "a/b")]),
        (3, "a/b", [Receive("user", "clientid", "a/b"), Publish("user", "clientid", "a/b")]),
        (4, "a/+", [Subscribe("user", "clientid", "a/+")]),
        (4, "$share/g/a/#", [Subscribe("user", "clientid", "a/#")]),
        (4, "$share/g", [Subscribe("user", "clientid", "")]),
        # A shared subscription can neither be published to nor be the topic of a message.
        (1, "$share/g/a", [Receive("user", "clientid", "$share/g/a")]),
        (2, "$share/g/a", [Publish("user", "clientid", "$share/g/a")]),
        (8, "a/+", [Use("user", "clientid")]),
    ],
)
def test_an_acting_client_is_read(
    mode: str, acc: int, topic: str, questions: list[Question]
) -> None:
    assert OPERATIONS["acl"].read(asked(mode, ACL | {"acc": acc, "topic": topic})) == questions


def test_acc_may_be_a_string() -> None:
    questions = OPERATIONS["acl"].read(asked("json", ACL | {"acc": "2"}))
    assert questions == [Publish("user", "clientid", "topic")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("acc", [0, 5, 6, 7, 9, 17, -1, 2.0, "02", " 2", "", "2 ", "x", 10**30])
def test_an_unknown_acc_is_unreadable(mode: str, acc: object) -> None:
    with pytest.raises(Unreadable):
        OPERATIONS["acl"].read(asked(mode, ACL | {"acc": acc}))


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_one_answer_allows_in_the_modes_status_and_json(operation: str) -> None:
    reply = OPERATIONS[operation].answer(asked("json", {}), [ALLOWED, ALLOWED])
    assert (reply.status, reply.content_type) == (200, b"application/json")
    assert json.loads(reply.body) == {"Ok": True, "Error": ""}


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ([], ""),
        ([REFUSED], "TOPIC_NOT_ALLOWED"),
        ([ALLOWED, REFUSED], "TOPIC_NOT_ALLOWED"),
        ([UNREADABLE], "UNREADABLE"),
    ],
)
def test_one_answer_denies_in_both_modes(
    operation: str, verdicts: list[Verdict], reason: str
) -> None:
    reply = OPERATIONS[operation].answer(asked("json", {}), verdicts)
    # A 5xx would be an error, after which the plugin retries.
    assert (reply.status, reply.content_type) == (403, b"application/json")
    assert json.loads(reply.body) == {"Ok": False, "Error": reason}


@pytest.mark.parametrize("field", sorted(ACL))
@pytest.mark.parametrize("wrong", [None, True, 1.5, [], ["a"], {}])
def test_a_field_of_the_wrong_type_is_unreadable(field: str, wrong: object) -> None:
    with pytest.raises(Unreadable):
        OPERATIONS["acl"].read(asked("json", ACL | {field: wrong}))
