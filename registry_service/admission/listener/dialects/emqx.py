"""EMQX 5: its HTTP authenticator, its HTTP authorizer and its webhooks. JSON in, JSON out.

https://docs.emqx.com/en/emqx/latest/access-control/authn/http.html (authentication),
…/access-control/authn/acl.html (what a session may do, answered when it connects; since 5.8) and
…/access-control/authz/http.html (authorization); …/data-integration/webhook.html (events).

For EMQX every status except 200 means that its next source decides, so the status is always 200.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType, structs

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
    Grants,
    Notice,
    Publish,
    Question,
    Subscribe,
    Verdict,
    is_allowed,
)


class Credentials(msgspec.Struct):
    """The authenticator's body."""

    username: str
    password: str
    clientid: str
    # "undefined" or absent if EMQX does not know it.
    peerhost: str | None = None


class Action(msgspec.Struct):
    """The authorizer's body. EMQX has taken `$share/<name>/` off the topic."""

    username: str
    clientid: str
    topic: str
    action: Literal["publish", "subscribe"]


class Event(msgspec.Struct):
    """The used fields of a webhook's body; a rule may send any event here.

    A field that an event does not have is absent, null or "undefined". Times are in ms.
    """

    event: str
    clientid: str = ""
    username: str | None = None
    # In seconds, for a client that has connected.
    expiry_interval: float | str | None = None
    peername: str | None = None
    connected_at: float | str | None = None
    disconnected_at: float | str | None = None
    timestamp: float | str | None = None
    reason: str | None = None


class Rule(msgspec.Struct, frozen=True):
    """One of the rules of a session; the first that matches decides."""

    permission: Literal["allow", "deny"]
    action: Literal["publish", "subscribe", "all"]
    topic: str


class Session(msgspec.Struct):
    """The authenticator's answer for a client that is accepted."""

    acl: list[Rule]
    expire_at: int | UnsetType
    result: Literal["allow"] = "allow"
    is_superuser: bool = False


_credentials = msgspec.json.Decoder(Credentials)
_action = msgspec.json.Decoder(Action)
_event = msgspec.json.Decoder(Event)
_encoder = msgspec.json.Encoder()

# If no rule matches, EMQX asks its authorizers, and then applies `authorization.no_match`. These
# rules match all topics except those that begin with "$", which a wildcard in front does not match.
NOTHING_ELSE = (Rule("deny", "all", "#"), Rule("deny", "all", "$SYS/#"))
IS_ONLINE = {"client.connected": True, "client.disconnected": False}
# The reasons for the end of a replaced connection: with its session, or without it.
REPLACED = frozenset({"takenover", "takeovered", "discarded"})

# Clients and servers remove these segments from the path of a URL (RFC 3986, section 5.2.4), so a
# session with such a client id could not be ended.
DOTS = frozenset({".", ".."})
# The year 9999.
MAX_MS = 253_402_300_799_000

ALLOW = DialectReply(200, JSON, b'{"result":"allow"}')
DENY = DialectReply(200, JSON, b'{"result":"deny"}')
NOTED = DialectReply(200, JSON, b"{}")


class Authenticate:
    """Asks whether a client may connect, and what it may do then."""

    def read(self, request: Asked) -> Sequence[Question]:
        """One `Connect`."""
        found = read_json(_credentials, request)
        address = found.peerhost or ""
        check_names(found.username, found.password, found.clientid, address)
        if found.clientid in DOTS:
            raise Unreadable("a client id of dots cannot be named in a URL of EMQX's API")
        return [Connect(found.username, found.password, found.clientid, address=address)]

    def answer(self, request: Asked, verdicts: Sequence[Verdict]) -> DialectReply:  # noqa: ARG002
        """The reply, with rules and the time at which EMQX disconnects the client."""
        if not is_allowed(verdicts):
            return DENY
        verdict = verdicts[0]
        expire_at = UNSET if verdict.expires_at is None else verdict.expires_at
        session = Session(list(_rules(verdict.grants)), expire_at)
        return DialectReply(200, JSON, _encoder.encode(session))


class Authorize:
    """Asks whether a client may publish or subscribe; used by EMQX before 5.8."""

    def read(self, request: Asked) -> Sequence[Question]:
        """One `Publish` or `Subscribe`."""
        found = read_json(_action, request)
        check_names(found.username, found.clientid)
        kind = Publish if found.action == "publish" else Subscribe
        return [kind(found.username, found.clientid, found.topic)]

    def answer(self, request: Asked, verdicts: Sequence[Verdict]) -> DialectReply:  # noqa: ARG002
        """The reply, allow or deny."""
        return ALLOW if is_allowed(verdicts) else DENY


class Webhook:
    """Reports that a client has connected or disconnected."""

    def read(self, request: Asked) -> Sequence[Notice]:
        """One `Notice`, or nothing for events of any other kind."""
        found = read_json(_event, request)
        is_online = IS_ONLINE.get(found.event)
        if is_online is None:
            return []
        username = found.username or ""
        check_names(username, found.clientid, found.peername or "")
        expiry_s = found.expiry_interval
        notice = Notice(
            username,
            found.clientid,
            is_online,
            is_kept=not isinstance(expiry_s, str | None) and expiry_s > 0,
            peer="" if found.peername in (None, "undefined") else found.peername,
            began_at=_ms(found.connected_at),
        )
        if is_online:
            return [structs.replace(notice, began_at=notice.began_at or _ms(found.timestamp))]
        ended_at = _ms(found.disconnected_at) or _ms(found.timestamp)
        return [structs.replace(notice, is_replaced=found.reason in REPLACED, ended_at=ended_at)]

    def answer(self, request: Asked, verdicts: Sequence[Verdict]) -> DialectReply:  # noqa: ARG002
        """The same reply for all notices, because EMQX repeats a notice that is refused."""
        return NOTED


def _ms(said: float | str | None) -> int:
    """A time in Unix ms; 0 if the value is no time."""
    return int(said) if not isinstance(said, str | None) and 0 < said < MAX_MS else 0


def _rules(grants: Grants | None) -> Iterator[Rule]:
    if grants is not None:
        for topic in filter(_is_plain, grants.publish):
            yield Rule("allow", "publish", topic)
        yield from _subscribing([*filter(_is_plain, grants.subscribe)])
    yield from NOTHING_ELSE


def _subscribing(topics: Sequence[str]) -> Iterator[Rule]:
    """The rules for subscribing to the granted filters. In EMQX a rule for "a/+" also matches the
    filter "a/#", because "+" stands for any word, "#" included.

    So "a/#" is denied first, unless it is granted itself. If the filter has another "+", too many
    filters would have to be denied, and the grant is left out.
    """
    for topic in topics:
        if not topic.endswith("+"):
            yield Rule("allow", "subscribe", topic)
    for topic in topics:
        if topic.endswith("+") and topic.count("+") == 1:
            yield Rule("deny", "subscribe", f"eq {topic[:-1]}#")
            yield Rule("allow", "subscribe", topic)


def _is_plain(topic: str) -> bool:
    """Whether EMQX reads the filter as it is, without a placeholder or its prefix `eq`."""
    return "${" not in topic and not topic.startswith("eq ")


OPERATIONS: Mapping[str, Operation] = {
    "authenticate": Authenticate(),
    "authorize": Authorize(),
    "event": Webhook(),
}
