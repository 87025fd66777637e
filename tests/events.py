"""Streams of server-sent events, for tests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import requests
from requests.adapters import HTTPAdapter

MEDIA_TYPE = "text/event-stream"
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Event:
    """One event."""

    id: str
    name: str
    data: Any

    @property
    def kinds(self) -> set[str]:
        """The kinds that an event of changes names."""
        return set(self.data["kinds"])


class Events:
    """The events of an open stream."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        # Comments that were received so far.
        self.comments = 0

    async def next(self) -> Event | None:
        """The next event; None if the stream has ended. Raises `TimeoutError`."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE_S):
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    return Event(fields["id"], fields["event"], json.loads(fields["data"]))
        return None

    async def until(self, kind: str) -> Event:
        """The first event that names `kind`."""
        while (event := await self.next()) is not None:
            if kind in event.kinds:
                return event
        raise AssertionError(f"the stream ended without {kind}")

    async def end(self) -> None:
        """Returns when the stream has ended. Raises `TimeoutError`."""
        while await self.next() is not None:
            pass


@asynccontextmanager
async def followed(
    client: httpx2.AsyncClient,
    token: str = "",
    *,
    last_event_id: str = "",
    url: str = "",
    path: str = "/api/v1/changes",
) -> AsyncIterator[Events]:
    """The changes of a gateway, which is that of `client` unless `url` is another's. Without a
    `token`, the cookies of `client` have to do.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    async with client.stream("GET", f"{url}{path}", headers=headers) as response:
        # Kept, because the connection closes when the iterator over its lines is collected.
        events = Events(response)
        yield events


class FirstEvent(httpx2.AsyncHTTPTransport):
    """Ends each stream of events after its first event, for tests that walk over all routes."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if response.headers.get("content-type", "").startswith(MEDIA_TYPE):
            body = b""
            async for part in response.aiter_raw():
                body += part
                if b"data: " in body:
                    break
            await response.aclose()
            return httpx2.Response(response.status_code, headers=response.headers, content=body)
        return response


class FirstEventAdapter(HTTPAdapter):
    """The same for `requests`."""

    def build_response(self, request: Any, answer: Any) -> requests.Response:
        """The response, with a body that ends."""
        response = super().build_response(request, answer)
        if response.headers.get("content-type", "").startswith(MEDIA_TYPE):
            body = b""
            while b"data: " not in body and (part := response.raw.read1()):
                body += part
            # The connection is closed, because the rest of the answer is still to come on it.
            response.raw.close()
            response._content = body
            setattr(response, "_content_consumed", True)  # noqa: B010 - unknown to its types
        return response
