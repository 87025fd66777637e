"""A gateway that runs, as devices and administrators use it over HTTP."""

import secrets
import ssl
from typing import Any, LiteralString, Protocol

import httpx2

from chassis.trust import Access
from tests.events import FirstEvent

# Longer than the services answer, shorter than pytest waits.
PATIENCE_S = 20.0
# Trusts no CA: the gateway speaks plain HTTP, and reading a system's CAs takes 40 ms a client.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Statements(Protocol):
    """A database that tests look into and change."""

    def execute(self, statement: LiteralString, *values: Any) -> list[Any]:
        """Commits one statement and returns its rows."""


class Served:
    """The gateway at `gateway_url`, with a token and a provisioning key that were made there."""

    gateway_url: str
    admin_token: str
    provisioning_key: str
    http: httpx2.AsyncClient
    database: Statements

    async def register(
        self, uuid: str = "test-device-123", *, key: str | None = None, **changes: Any
    ) -> httpx2.Response:
        """Registers a device with the example of the docs, over HTTP."""
        body = {
            "uuid": uuid,
            "deviceName": "Test Device",
            "deviceType": "raspberry-pi-4",
            "deviceApiKey": "test-api-key",
            **changes,
        }
        return await self.http.post(
            "/api/v1/device/register",
            json=body,
            headers={"Authorization": f"Bearer {key or self.provisioning_key}"},
        )

    async def connection(self, uuid: str, api_key: str = "test-api-key", **headers: str) -> Any:
        """`GET /api/v1/device/{uuid}/mqtt`."""
        return await self.http.get(
            f"/api/v1/device/{uuid}/mqtt",
            headers={"Authorization": f"Bearer {api_key}", **headers},
        )

    async def admin(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """A request of an administrator; `path` is below /api/v1."""
        return await self.http.request(
            method,
            f"/api/v1{path}",
            headers={"Authorization": f"Bearer {self.admin_token}"},
            **options,
        )

    async def token(
        self, role: Access = Access.ADMIN, fleets: tuple[str, ...] | None = None, name: str = ""
    ) -> str:
        """A new API token. None are all fleets. Its name must be unique; it has one if empty."""
        role_name = role.name.lower()
        body: dict[str, Any] = {
            "name": name or f"{role_name} {secrets.token_hex(4)}",
            "role": role_name,
        }
        if fleets is not None:
            body["fleet_ids"] = fleets
        made = await self.admin("POST", "/tokens", json=body)
        assert made.status_code == 201, made.text
        return str(made.json()["token"])


def client_of(gateway_url: str) -> httpx2.AsyncClient:
    """A client of a gateway without TLS."""
    return httpx2.AsyncClient(
        base_url=gateway_url, timeout=PATIENCE_S, transport=FirstEvent(verify=NO_TLS)
    )
