"""Which kinds of things change, as a stream of events: `/api/v1/changes`."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any, ClassVar

import msgspec
from litestar import Response, Router, get
from litestar.background_tasks import BackgroundTask
from litestar.params import HeaderParameter
from litestar.response import Stream
from mooring.registry.v1 import tokens_pb2
from msgspec import Meta, Struct

from chassis.errors import MooringError, Unauthenticated
from chassis.trust import Access, WithinFleets
from gateway.administration.caller import Caller, CallerRequest
from gateway.changes import readable
from gateway.context import Context, context_of, is_head
from gateway.documentation import EventsOf
from gateway.streams import RETRY_S

MEDIA_TYPE = "text/event-stream"
# A comment is sent when nothing else was for this time, so that proxies keep the connection.
HEARTBEAT_S = 15.0
HEARTBEAT = b": \n\n"
# How often the token is checked, besides when tokens have changed; how long a check may take; and
# how long the stream goes on if the token cannot be checked.
CHECK_S = 10.0
CHECK_WITHIN_S = 3.0
UNCHECKED_S = 60.0
BEGIN = b"retry: %d\n\n" % (RETRY_S * 1_000)
# Proxies such as nginx would collect the events otherwise.
HEADERS = {"X-Accel-Buffering": "no"}
TOKENS = "tokens"
ROLES = {
    tokens_pb2.ROLE_VIEWER: Access.VIEWER,
    tokens_pb2.ROLE_OPERATOR: Access.OPERATOR,
    tokens_pb2.ROLE_ADMIN: Access.ADMIN,
}


class Change(Struct, frozen=True):
    """The data of an event. What has changed is not in it: read it again."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"kinds": ["devices", "registrations"]}

    kinds: Annotated[
        list[str],
        Meta(
            description="The kinds of things that changed, or may have changed, since the event "
            "before; only kinds that the token may read."
        ),
    ]


LastEventId = Annotated[
    str,
    HeaderParameter(
        name="Last-Event-ID",
        description="The id of the last event that the client has seen. Without it, the first "
        "event names every kind.",
    ),
]


@get(
    "/changes",
    access=WithinFleets(Access.VIEWER),
    summary="Follow changes",
    description="A stream of server-sent events. Each event `changes` names the kinds of things "
    "that changed, and not what changed. Comments are sent while nothing changes. A token that is "
    "restricted to fleets gets an event every few seconds, whether something changed or not. "
    "The stream ends when the token is no longer valid, and when the gateway stops: connect again, "
    "with `Last-Event-ID`.",
    media_type=MEDIA_TYPE,
    lines=EventsOf((Change,), (Change.EXAMPLE,)),
)
async def follow_changes(request: CallerRequest, last_event_id: LastEventId = "") -> Response[Any]:
    context = context_of(request)
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.tokens.GetOwnToken, tokens_pb2.GetOwnTokenRequest()
    )
    context.streams.require_room(answer.token.id)
    context.changes.require_room()
    if is_head(request):
        return Response(b"", media_type=MEDIA_TYPE, headers=HEADERS)
    events = _events(context, caller, answer.token, last_event_id)
    # If the client has disconnected while an event was written, nothing else ends the events.
    ending = BackgroundTask(events.aclose)
    return Stream(events, media_type=MEDIA_TYPE, headers=HEADERS, background=ending)


async def _events(
    context: Context, caller: Caller, token: tokens_pb2.Token, after: str
) -> AsyncGenerator[bytes, None]:
    """Ends when the token is not valid, and when the gateway is about to stop."""
    is_restricted = token.HasField("fleets")
    kinds = readable(ROLES[token.role], is_restricted=is_restricted)
    validity = Validity(caller)
    sent_at = asyncio.get_running_loop().time()
    with (
        context.streams.opened(token.id),
        context.changes.subscribed(
            kinds | {TOKENS}, after=after, is_restricted=is_restricted
        ) as subscription,
    ):
        yield BEGIN
        while True:
            due = min(sent_at + HEARTBEAT_S, validity.due_at)
            await subscription.wait(due - asyncio.get_running_loop().time())
            if subscription.is_over:
                return
            position, changed = subscription.take()
            if not await validity.checked(is_due=TOKENS in changed):
                return
            now = asyncio.get_running_loop().time()
            if shown := sorted(changed & kinds):
                yield _event(position, shown)
            elif now >= sent_at + HEARTBEAT_S:
                yield HEARTBEAT
            else:
                continue
            sent_at = now


class Validity:
    """Whether the token of a stream is still valid."""

    def __init__(self, caller: Caller) -> None:
        """The token is valid now."""
        self._caller = caller
        self._checked_at = asyncio.get_running_loop().time()
        self.due_at = self._checked_at + CHECK_S

    async def checked(self, *, is_due: bool) -> bool:
        """Checks the token, if `is_due` or if the last check was some time ago. While the registry
        cannot be reached, the token is taken for valid for a minute: then nothing changes either.
        """
        now = asyncio.get_running_loop().time()
        if not is_due and now < self.due_at:
            return True
        self.due_at = now + CHECK_S
        try:
            await self._caller.again(now + CHECK_WITHIN_S)
        except Unauthenticated:
            return False
        except MooringError:
            self.due_at = now + RETRY_S
            return now < self._checked_at + UNCHECKED_S
        self._checked_at = now
        return True


def _event(position: str, kinds: list[str]) -> bytes:
    data = msgspec.json.encode(Change(kinds))
    return b"id: %b\nevent: changes\ndata: %b\n\n" % (position.encode(), data)


ROUTES = Router("/", route_handlers=[follow_changes], tags=["system"])
