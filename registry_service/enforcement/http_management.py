"""Ends sessions by the HTTP API with which a broker is managed.

EMQX 5: https://docs.emqx.com/en/emqx/latest/admin/api.html (clients). RabbitMQ:
https://www.rabbitmq.com/docs/http-api-reference (connections).
"""

import ssl
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

import httpx2
import msgspec

from registry_service.errors import ControlNotAllowed, ControlUnreachable, ControlUnreadable

TIMEOUT_S = 5.0
PAGE = 100
# Of sessions of one username.
MAX_PAGES = 20
# EMQX says so of a client that has gone meanwhile, RabbitMQ of a user without connections.
GONE = (404, 410)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where the API is, and a login for it."""

    url: str
    username: str
    password: str = field(repr=False)
    ca_pem: str | None = None
    verify_certificate: bool = True


class EmqxClient(msgspec.Struct):
    """Of a page of clients."""

    clientid: str


class EmqxClients(msgspec.Struct):
    """A page."""

    data: list[EmqxClient]


class RabbitConnection(msgspec.Struct):
    """Of a list of connections; one that is being opened has less."""

    name: str = ""
    user: str = ""


class Kicker(Protocol):
    """What ends sessions at a broker."""

    async def kick(self, usernames: Collection[str]) -> dict[str, int]:
        """How many each of them had. Raises `ControlUnreachable`, `ControlNotAllowed` and
        `ControlUnreadable`.
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
        self._client = httpx2.AsyncClient(
            base_url=settings.url.rstrip("/"),
            auth=(settings.username, settings.password),
            verify=verify,
            timeout=TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            answer = await self._client.request(method, path, **options)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ControlUnreachable("there is no connection to the broker's API") from error
        if answer.status_code in (401, 403):
            raise ControlNotAllowed("the broker's API does not accept the login")
        if answer.status_code >= 400 and answer.status_code not in GONE:
            raise ControlUnreadable(f"the broker's API answers {answer.status_code}")
        return answer


class Emqx(_HttpKicker):
    """Of an EMQX 5; the login is an API key and its secret."""

    async def kick(self, usernames: Collection[str]) -> dict[str, int]:
        """See `Kicker`."""
        return {username: await self._kick(username) for username in usernames}

    async def _kick(self, username: str) -> int:
        ended = 0
        for _ in range(MAX_PAGES):
            query = {"username": username, "fields": "clientid", "limit": PAGE}
            answer = await self._ask("GET", "/api/v5/clients", params=query)
            found = [client.clientid for client in _decoded(answer, EmqxClients).data]
            for client_id in found:
                # It may have left by itself.
                await self._ask("DELETE", f"/api/v5/clients/{quote(client_id, safe='')}")
            ended += len(found)
            if len(found) < PAGE:
                return ended
        raise ControlUnreadable("the broker's API goes on listing clients that were ended")


class RabbitMq(_HttpKicker):
    """Of a RabbitMQ; the login is that of a user with the tag administrator."""

    async def kick(self, usernames: Collection[str]) -> dict[str, int]:
        """See `Kicker`. Statistics are left out: they are seconds behind."""
        counts = dict.fromkeys(usernames, 0)
        path = "/api/connections"
        answer = await self._ask("GET", path, params={"disable_stats": "true"})
        for connection in _decoded(answer, list[RabbitConnection]):
            if not connection.name or connection.user not in counts:
                continue
            await self._ask(
                "DELETE",
                f"{path}/{quote(connection.name, safe='')}",
                params={"disable_stats": "true"},
                headers={"X-Reason": "access was revoked"},
            )
            counts[connection.user] += 1
        return counts


def _decoded(answer: httpx2.Response, kind: Any) -> Any:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except msgspec.MsgspecError as error:
        raise ControlUnreadable("the broker's API does not answer as documented") from error
