"""What brokers ask at the access listener, in each dialect: the head, the query and the body."""

import json

from registry_service.admission.listener.dialects import DIALECTS
from registry_service.admission.listener.dialects.asked import Asked
from registry_service.admission.questions import Grants, Notice, Verdict
from tests.fuzz.given import chosen
from tests.unit.registry_service.admission.listener.test_dialects import (
    HOOKS,
    OPERATIONS,
    SOUND,
    judge,
)

TYPES = (
    *(b"application/json", b"application/x-www-form-urlencoded", b"text/plain", b""),
    *(b"APPLICATION/JSON; charset=utf-8", b"application/json;"),
)
# Separates the query from the body.
BREAK = b"\n\n"


def _seed(dialect: str, operation: str, asked: Asked) -> bytes:
    kind = TYPES.index(asked.headers.get(b"content-type", b""))
    hook = HOOKS.index(asked.headers.get(b"vernemq-hook", b""))
    which = OPERATIONS.index((dialect, operation))
    return bytes((which, kind, hook)) + asked.query + BREAK + asked.body


SEEDS = tuple(_seed(*sound) for sound in SOUND)
WORDS = (
    *(b'"username":', b'"clientid":', b'"client_id":', b'"topic":', b'"action":', b'"acc":4'),
    *(b'"event":"client.disconnected"', b'"reason":"takenover"', b'"expiry_interval":'),
    *(b'"disconnected_at":', b'"connected_at":', b'"peername":', b'"peer_port":', b'"topics":[{'),
    *(b"username=", b"&vhost=%2F", b"&routing_key=", b"&permission=write", b"&resource=queue"),
    *(b"&name=amq.topic", b"variable_map.client_id=", b"1e308", b"-1", b"null", b"\\ud800", b"[["),
    *(b"$share/g/", b"%00", b"%C3%A4", b'"undefined"', BREAK, b"NaN", b"\xef\xbb\xbf", b"9" * 30),
)
ALLOWED = Verdict(is_allowed=True, grants=Grants(("a/#",), ("a/+", "#")), expires_at=1)
DENIED = Verdict(is_allowed=False, reason="TOPIC_NOT_GRANTED")


def attempt(data: bytes) -> None:
    (dialect, operation), rest = chosen(data, OPERATIONS)
    kind, rest = chosen(rest, TYPES)
    hook, rest = chosen(rest, HOOKS)
    query, _, body = rest.partition(BREAK)
    asked = Asked({b"content-type": kind, b"vernemq-hook": hook}, query, body)
    if not judge(dialect, operation, asked):
        return
    parser = DIALECTS[dialect][operation]
    found = parser.read(asked)
    assert found == parser.read(asked)
    count = sum(not isinstance(one, Notice) for one in found)
    for verdicts in ([ALLOWED] * count, ([ALLOWED, DENIED] * count)[:count]):
        reply = parser.answer(asked, verdicts)
        assert reply.status in (200, 403)
        if reply.content_type == b"application/json":
            json.loads(reply.body)
