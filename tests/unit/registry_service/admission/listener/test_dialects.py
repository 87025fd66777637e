"""Any request in any dialect is a question, a notice or unreadable; reading it admits no client."""

import json
import re
from collections.abc import Iterator
from urllib.parse import quote_from_bytes, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry_service.admission.listener.dialects import DIALECTS
from registry_service.admission.listener.dialects.asked import (
    MAX_CHARACTERS,
    Asked,
    DialectReply,
    Operation,
    Unreadable,
)
from registry_service.admission.questions import (
    UNREADABLE,
    Connect,
    Notice,
    Question,
    Verdict,
)
from tests.unit.registry_service.admission.listener import test_dialect_emqx as emqx
from tests.unit.registry_service.admission.listener import test_dialect_mosquitto as mosquitto
from tests.unit.registry_service.admission.listener import test_dialect_rabbitmq as rabbitmq
from tests.unit.registry_service.admission.listener import test_dialect_vernemq as vernemq

REFUSED = Verdict(is_allowed=False, reason="UNKNOWN_CLIENT")
NOTICES = {("emqx", "event")}
OPERATIONS = [
    (dialect, operation) for dialect, some in DIALECTS.items() for operation in sorted(some)
]
HOOKS = [hook.encode() for hook in (*vernemq.QUESTIONS, *vernemq.NOTICES, "", "on_deliver")]
FORM = b"application/x-www-form-urlencoded"
JSON = b"application/json"

# Requests that each dialect understands, as a broker would send them.
SOUND: list[tuple[str, str, Asked]] = [
    ("emqx", "authenticate", emqx.asked(emqx.AUTHENTICATE)),
    ("emqx", "authorize", emqx.asked(emqx.AUTHORIZE)),
    ("emqx", "event", emqx.asked(emqx.CONNECTED)),
    *(
        ("mosquitto", operation, mosquitto.asked(mode, body))
        for operation, body in (("user", mosquitto.USER), ("acl", mosquitto.ACL))
        for mode in mosquitto.MODES
    ),
    *(
        ("rabbitmq", operation, rabbitmq.asked(fields, method))
        for operation, fields in (
            ("user", rabbitmq.USER),
            ("vhost", rabbitmq.VHOST),
            ("resource", rabbitmq.RESOURCE),
            ("topic", rabbitmq.TOPIC),
        )
        for method in rabbitmq.METHODS
    ),
    *(("vernemq", "webhook", vernemq.asked(hook, body)) for hook, body, _ in vernemq.HOOKS),
]


def operation_of(dialect: str, operation: str) -> Operation:
    return DIALECTS[dialect][operation]


def with_part(sound: Asked, part: bytes) -> Asked:
    """The same request with another body, or another query if it has no body."""
    query, body = (sound.query, part) if sound.body else (part, b"")
    return Asked(sound.headers, query, body)


def is_refusal(dialect: str, reply: DialectReply) -> bool:
    """Whether the reply is a refusal in the broker's dialect."""
    if dialect == "mosquitto":
        return reply.status == 403 and json.loads(reply.body)["Ok"] is False
    words = {
        "emqx": b'{"result":"deny"}',
        "rabbitmq": b"deny",
        "vernemq": b'{"result":{"error":"not_allowed"}}',
    }
    return reply.status == 200 and reply.body == words[dialect] and not reply.headers


def is_taken(reply: DialectReply) -> bool:
    return reply.status == 200 and reply.body == b"{}"


def is_notice(dialect: str, operation: str, request: Asked) -> bool:
    hook = request.headers.get(b"vernemq-hook", b"").decode("latin-1")
    return (dialect, operation) in NOTICES or (dialect == "vernemq" and hook in vernemq.NOTICES)


def texts_of(found: Question | Notice) -> Iterator[str]:
    yield from (found.username, found.client_id)
    if isinstance(found, Connect):
        yield found.password


def judge(dialect: str, operation: str, request: Asked) -> bool:
    """Asks a listener without any subjects; returns whether the request was readable."""
    asked = operation_of(dialect, operation)
    try:
        found = asked.read(request)
    except Unreadable:
        verdicts, is_sound = [UNREADABLE], False
    else:
        verdicts = [REFUSED for one in found if not isinstance(one, Notice)]
        is_sound = True
        for one in found:
            assert isinstance(one, Notice) is is_notice(dialect, operation, request)
            for text in texts_of(one):
                assert len(text) <= MAX_CHARACTERS
                assert "\0" not in text
                text.encode()
    reply = asked.answer(request, verdicts)
    if is_notice(dialect, operation, request):
        assert is_taken(reply)
    else:
        assert is_refusal(dialect, reply)
    return is_sound


@pytest.mark.parametrize(("dialect", "operation", "request_"), SOUND)
def test_requests_of_brokers_are_readable_and_admit_no_unknown_client(
    dialect: str, operation: str, request_: Asked
) -> None:
    assert judge(dialect, operation, request_)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=10,
)
TYPES = st.sampled_from([JSON, FORM, b"text/plain", b"", b"application/json; charset=utf-8"])
HEADERS: st.SearchStrategy[dict[bytes, bytes]] = st.just({}) | st.fixed_dictionaries(
    {b"content-type": TYPES | st.binary(max_size=20), b"vernemq-hook": st.sampled_from(HOOKS)}
)
BYTES = st.binary(max_size=100) | ANY_JSON.map(lambda sent: json.dumps(sent).encode())


@given(st.sampled_from(OPERATIONS), HEADERS, BYTES, BYTES)
def test_any_bytes_in_any_dialect(
    which: tuple[str, str], headers: dict[bytes, bytes], query: bytes, body: bytes
) -> None:
    judge(*which, Asked(headers, query, body))


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[str, str, Asked]:
    """A request of a broker with a part of it replaced."""
    dialect, operation, sound = draw(st.sampled_from(SOUND))
    part = sound.body or sound.query
    start = draw(st.integers(0, len(part)))
    end = draw(st.integers(start, min(start + 20, len(part))))
    part = part[:start] + draw(st.binary(max_size=20)) + part[end:]
    return dialect, operation, with_part(sound, part)


@given(spoilt())
def test_damaged_requests(spoilt: tuple[str, str, Asked]) -> None:
    judge(*spoilt)


IN_JSON = [
    (dialect, operation, sound)
    for dialect, operation, sound in SOUND
    if sound.headers.get(b"content-type") == JSON
]
NAMES = ("username", "client_id", "clientid", "password")
# Values of a username or password: as JSON, and as a form has them.
INVALID_NAMES = [
    ('"\\u0000"', b"\0"),
    ('"a\\u0000b"', b"a\0b"),
    (json.dumps("a" * (MAX_CHARACTERS + 1)), b"a" * (MAX_CHARACTERS + 1)),
    (json.dumps("a" * 65_535), b"a" * 65_535),
    ('"\\ud800"', b"\xed\xa0\x80"),
    ('"\\udfff\\ud800"', b"\xed\xbf\xbf"),
    ('"\ud800"', b"\xff"),
]


@pytest.mark.parametrize(("in_json", "in_form"), INVALID_NAMES, ids=range(len(INVALID_NAMES)))
@pytest.mark.parametrize(("dialect", "operation", "sound"), SOUND)
def test_names_that_no_client_can_have(
    dialect: str, operation: str, sound: Asked, in_json: str, in_form: bytes
) -> None:
    part = sound.body or sound.query
    if sound.headers.get(b"content-type") == JSON:
        field, there = '"{}":\\s*("[^"]*"|null)', in_json.encode("utf-8", "surrogatepass")
    else:
        field, there = "(?<![a-z.]){}=([^&]*)", quote_from_bytes(in_form).encode()
    spoilt = 0
    for name in NAMES:
        for found in re.finditer(field.format(name).encode(), part):
            spoilt_part = part[: found.start(1)] + there + part[found.end(1) :]
            assert not judge(dialect, operation, with_part(sound, spoilt_part))
            spoilt += 1
    assert spoilt


@pytest.mark.parametrize(("dialect", "operation", "sound"), IN_JSON)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"username":' * 50_000,
        b'{"username": 1e999}',
        b'{"username": ' + b"9" * 10_000 + b"}",
        b"username=a&password=b&clientid=c",
    ],
)
def test_json_of_the_wrong_form(dialect: str, operation: str, sound: Asked, body: bytes) -> None:
    assert not judge(dialect, operation, Asked(sound.headers, sound.query, body))


@pytest.mark.parametrize(("dialect", "operation", "sound"), IN_JSON)
def test_unknown_fields_may_be_nested_and_of_any_size(
    dialect: str, operation: str, sound: Asked
) -> None:
    assert judge(dialect, operation, sound)
    for ignored in (b"1" * 10_000, b"[" * 100 + b"]" * 100, json.dumps("a" * 100_000).encode()):
        body = sound.body.replace(b"{", b'{"ignored": ' + ignored + b", ", 1)
        assert judge(dialect, operation, Asked(sound.headers, sound.query, body))
    not_utf8 = sound.body.replace(b"{", b'{"ignored": "\xff", ', 1)
    assert not judge(dialect, operation, Asked(sound.headers, sound.query, not_utf8))
    deep = sound.body.replace(b"{", b'{"ignored": ' + b"[" * 50_000 + b"]" * 50_000 + b", ", 1)
    judge(dialect, operation, Asked(sound.headers, sound.query, deep))


@pytest.mark.parametrize(("dialect", "operation", "sound"), SOUND)
@pytest.mark.parametrize(
    "content_type", [b"text/plain", b"", b"application/jsonp", b"multipart/form-data", b"\xff"]
)
def test_a_body_of_another_type(
    dialect: str, operation: str, sound: Asked, content_type: bytes
) -> None:
    headers = {**sound.headers, b"content-type": content_type}
    is_query = not sound.body
    assert judge(dialect, operation, Asked(headers, sound.query, sound.body)) is is_query


@given(st.sampled_from(SOUND), st.text(max_size=30) | st.sampled_from(["#", "a/#/b", "\0", "a+"]))
@example(SOUND[1], "a" * 70_000)
def test_any_topic_is_a_question(which: tuple[str, str, Asked], topic: str) -> None:
    dialect, operation, sound = which
    if sound.headers.get(b"content-type") == JSON:
        fields = json.loads(sound.body)
        if "topic" in fields:
            body = json.dumps(fields | {"topic": topic}).encode()
            assert judge(dialect, operation, Asked(sound.headers, b"", body))
    elif operation == "topic":
        fields = rabbitmq.TOPIC | {"routing_key": topic}
        assert judge(dialect, operation, Asked({}, urlencode(fields).encode(), b""))


def test_secrets_are_in_no_representation() -> None:
    for dialect, operation, sound in SOUND:
        assert "secret" not in repr(sound)
        assert "pass" not in repr(operation_of(dialect, operation).read(sound)).lower()
