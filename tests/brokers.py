"""The process that brokers ask, and requests as brokers send them."""

import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2

import registry_service.access.__main__
from registry_service.admission.listener.config import AccessConfig
from tests.served import NO_TLS
from tests.stack import PATIENCE_S, Stack


@dataclass
class Asking:
    """The listener, and a secret of the stack's default broker."""

    stack: Stack
    url: str
    http: httpx2.AsyncClient
    secret: str

    async def emqx(self, operation: str, secret: str | None = None, **body: Any) -> httpx2.Response:
        """Sends a request as EMQX does."""
        headers = {"Authorization": f"Bearer {secret or self.secret}"}
        return await self.http.post(f"/emqx/{operation}", json=body, headers=headers)

    async def connects(
        self, username: str, password: str, client_id: str | None = None, secret: str | None = None
    ) -> bool:
        """Whether a client may connect; with its own client id unless another is given."""
        own = f"mqttjs_{username[:40]}" if client_id is None else client_id
        body = {"username": username, "password": password, "clientid": own}
        answer = await self.emqx("authenticate", secret, **body)
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["result"] == "allow")

    async def may(self, action: str, username: str, topic: str, secret: str | None = None) -> bool:
        """Whether a client may publish or subscribe."""
        body = {"username": username, "clientid": "any", "topic": topic, "action": action}
        answer = await self.emqx("authorize", secret, **body)
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["result"] == "allow")


def secret_of(stack: Stack, broker_id: int) -> str:
    """Creates a secret of a broker."""
    secret = f"mbs_{secrets.token_urlsafe(32)}"
    stack.database.execute(
        "INSERT INTO broker_secrets (broker_id, secret_hash, prefix) VALUES (%s, %s, %s)",
        *(broker_id, hashlib.sha256(secret.encode()).digest(), secret[:8]),
    )
    return secret


@contextlib.asynccontextmanager
async def asking(stack: Stack, **changes: Any) -> AsyncIterator[Asking]:
    """Runs the process on a free port."""
    secret = secret_of(stack, stack.default_broker_id)
    config = AccessConfig(
        **{
            "database_url": stack.database.url("mooring_access"),
            "bind_port": 0,
            "drain_s": 0,
            **changes,
        }
    )
    async with (
        registry_service.access.__main__.running(config) as url,
        httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S, verify=NO_TLS) as http,
    ):
        yield Asking(stack, url, http, secret)
