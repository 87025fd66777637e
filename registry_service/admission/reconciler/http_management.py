"""Ends sessions through the management API of a broker.

EMQX 5: https://docs.emqx.com/en/emqx/latest/admin/api.html (clients). RabbitMQ:
https://www.rabbitmq.com/docs/http-api-reference (connections).
"""

import asyncio
import contextlib
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import quote

import httpx2
import msgspec

from chassis.address_policy import DEFAULT, AddressPolicy
from chassis.connecting import AddressRefused, resolved
from registry_service.admission.reconciler.json_limits import decoded
from registry_service.errors import ControlNotAllowed, ControlUnreachable, ControlUnreadable

# The limit of each wait, and of one whole call of `kick`, in seconds.
TIMEOUT_S = 5.0
KICK_S = 60.0
# The limit of an answer. A RabbitMQ sends about 300 bytes for each connection of a user.
MAX_BYTES = 8 * 1024 * 1024
# Sessions that are ended in one call; the next attempt ends the rest.
MAX_ENDED = 5_000
PAGE = 100
# The page size for sessions of one username.
MAX_PAGES = 20
# The answers about a client or a connection that has ended meanwhile.
GONE = (404, 410)
# Servers remove these segments from a path, encoded or not (RFC 3986, 5.2.4), so no path can name a
# user or client that is called so.
DOT_SEGMENTS = (".", "..")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The URL of the API, and a login for it."""

    url: str
    username: str
    password: str = field(repr=False)
    ca_pem: str | None = None
    verify_certificate: bool = True
    policy: AddressPolicy = DEFAULT


class EmqxClient(msgspec.Struct):
    """The metadata of a page of clients."""

    clientid: str


class EmqxClients(msgspec.Struct):
    """A page of clients."""

    data: list[EmqxClient]


class RabbitConnection(msgspec.Struct):
    """An item of a list of connections; a connection that is being opened lacks some fields."""

    name: str = ""
    user: str = ""


class Kicker(Protocol):
    """Ends sessions at a broker."""

    async def kick(self, usernames: Collection[str]) -> dict[str, int]:
        """Ends the sessions of these users; returns how many each had. Raises `ControlUnreachable`,
        `ControlNotAllowed` and `ControlUnreadable`.
        """
        ...


class _HttpKicker:
    def __init__(self, settings: HttpSettings) -> None:
        verify: ssl.SSLContext | bool = settings.verify_certificate
        if settings.ca_pem is not None and settings.verify_certificate:
            try:
                verify = ssl.create_default_context(cadata=settings.ca_pem)
            except (ssl.SSLError, ValueError) as error:
                raise ControlUnreachable("the broker's CA certificate cannot be read") from error
        self._url = httpx2.URL(settings.url.rstrip("/"))
        self._policy = settings.policy
        self._client = httpx2.AsyncClient(
            auth=(settings.username, settings.password),
            headers={"Accept-Encoding": "identity"},
            # No cookies are kept: they would grow with each answer.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            verify=verify,
            timeout=TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.aclose()

    async def kick(self, usernames: Collection[str]) -> dict[str, int]:
        """See `Kicker`."""
        try:
            async with asyncio.timeout(KICK_S):
                return await self._kick_all(usernames)
        except TimeoutError as error:
            raise ControlUnreachable("the broker's API takes too long") from error

    async def _kick_all(self, usernames: Collection[str]) -> dict[str, int]:
        raise NotImplementedError

    async def _ask(self, method: str, path: str, **options: Any) -> "_Answer":
        try:
            addresses = await resolved(self._url.host, self._port, self._policy)
            for address in addresses[:-1]:
                with contextlib.suppress(httpx2.ConnectError, httpx2.ConnectTimeout):
                    return await self._ask_at(address, method, path, options)
            return await self._ask_at(addresses[-1], method, path, options)
        except AddressRefused as error:
            raise ControlUnreachable(str(error)) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError) as error:
            raise ControlUnreachable("there is no connection to the broker's API") from error

    @property
    def _port(self) -> int:
        return self._url.port or (443 if self._url.scheme == "https" else 80)

    async def _ask_at(
        self, address: str, method: str, path: str, options: Mapping[str, Any]
    ) -> "_Answer":
        """Connects to the address; the certificate is checked against the name."""
        url = self._url.copy_with(
            host=address, raw_path=self._url.raw_path.rstrip(b"/") + path.encode()
        )
        headers = {"Host": self._url.netloc.decode(), **options.get("headers", {})}
        request = self._client.build_request(
            method,
            url,
            params=options.get("params"),
            json=options.get("json"),
            headers=headers,
            extensions={"sni_hostname": self._url.host},
        )
        answer = await self._client.send(request, stream=True)
        try:
            _require_success(answer)
            return _Answer(answer.status_code, await _content_of(answer))
        finally:
            await answer.aclose()


@dataclass(frozen=True, slots=True)
class _Answer:
    status_code: int
    content: bytes


def _require_success(answer: httpx2.Response) -> None:
    if answer.status_code in (401, 403):
        raise ControlNotAllowed("the broker's API does not accept the login")
    if answer.is_redirect:
        raise ControlUnreadable("the broker's API answers with a redirect, which is not followed")
    if answer.status_code >= 400 and answer.status_code not in GONE:
        raise ControlUnreadable(f"the broker's API answers {answer.status_code}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise ControlUnreadable("the broker's API answers with an encoding that was not asked for")


async def _content_of(answer: httpx2.Response) -> bytes:
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > MAX_BYTES:
            raise ControlUnreadable(f"the broker's API answers with more than {MAX_BYTES} bytes")
    return bytes(content)


class Emqx(_HttpKicker):
    """The API of an EMQX 5; the login is an API key and its secret."""

    async def _kick_all(self, usernames: Collection[str]) -> dict[str, int]:
        return {username: await self._kick(username) for username in usernames}

    async def _kick(self, username: str) -> int:
        ended = 0
        for _ in range(MAX_PAGES):
            query = {"username": username, "fields": "clientid", "limit": PAGE}
            answer = await self._ask("GET", "/api/v5/clients", params=query)
            found = [client.clientid for client in _decoded(answer, EmqxClients).data]
            for client_id in found:
                await self._end(client_id)
            ended += len(found)
            if len(found) < PAGE:
                return ended
        raise ControlUnreadable("the broker's API still lists clients whose sessions were ended")

    async def _end(self, client_id: str) -> None:
        """Ends the client's session. It is no error if the client has disconnected by itself."""
        if client_id in DOT_SEGMENTS:  # This route is newer: EMQX 5.0 does not have it.
            await self._ask("POST", "/api/v5/clients/kickout/bulk", json=[client_id])
        else:
            await self._ask("DELETE", f"/api/v5/clients/{quote(client_id, safe='')}")


class RabbitMq(_HttpKicker):
    """The API of a RabbitMQ; the login belongs to a user with the tag administrator.

    The list of all connections is some seconds old (from 4.3 on also without statistics). The list
    of one user's connections is current.
    """

    async def _kick_all(self, usernames: Collection[str]) -> dict[str, int]:
        counts = dict.fromkeys(usernames, 0)
        for username in usernames:
            for connection in await self._connections(username):
                await self._ask(
                    "DELETE",
                    f"/api/connections/{quote(connection.name, safe='')}",
                    params={"disable_stats": "true"},
                    headers={"X-Reason": "access was revoked"},
                )
                counts[username] += 1
                if sum(counts.values()) >= MAX_ENDED:
                    raise ControlUnreadable(f"more than {MAX_ENDED} sessions were ended at once")
        return counts

    async def _connections(self, username: str) -> list[RabbitConnection]:
        answer = None
        if username not in DOT_SEGMENTS:
            answer = await self._ask("GET", f"/api/connections/username/{quote(username, safe='')}")
        if answer is None or answer.status_code in GONE:
            # A wrong URL also answers 404. Then the list of all connections does so too.
            answer = await self._ask("GET", "/api/connections", params={"disable_stats": "true"})
        found = _decoded(answer, list[RabbitConnection])
        return [one for one in found if one.name and one.user == username]


def _decoded(answer: _Answer, kind: Any) -> Any:
    try:
        return decoded(answer.content, kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ControlUnreadable("the broker's API does not answer as documented") from error
