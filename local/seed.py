"""What a first start makes in an empty database, through the gateway, as an administrator does.

It may be interrupted anywhere: objects that exist are found again, and a token or key whose text
was lost is made once more.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any

from chassis.errors import MooringError
from local.errors import CannotRun
from local.services import HOST
from registry_service.bootstrap import admin_token

FLEET = "demo"
LOCAL_BROKER = "Local Broker"
LOCAL_PORT = 5883
CALL_S = 10.0


class Administrator:
    """Calls the gateway with an admin's token."""

    def __init__(self, port: int, token: str) -> None:
        """`port` is the gateway's, on loopback."""
        self._port = port
        self._token = token

    def ask(
        self, method: str, path: str, body: object = None, *, allowed: tuple[int, ...] = ()
    ) -> tuple[int, Any]:
        """The status and the JSON of the answer; `path` is below /api/v1.

        Raises `CannotRun` unless it is a success, or a status that is `allowed`.
        """
        headers = {"Authorization": f"Bearer {self._token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body)
        try:
            with closing(HTTPConnection(HOST, self._port, timeout=CALL_S)) as gateway:
                gateway.request(method, f"/api/v1{path}", data, headers)
                response = gateway.getresponse()
                status, text = response.status, response.read().decode()
            answer = json.loads(text) if text else None
        except (OSError, HTTPException, ValueError) as error:
            raise CannotRun(f"{method} {path}: the gateway does not answer: {error}") from None
        if not 200 <= status < 300 and status not in allowed:
            detail = answer.get("detail") if isinstance(answer, dict) else text
            raise CannotRun(f"{method} {path}: the gateway answers {status}: {detail}")
        return status, answer

    def sign_in_path(self) -> str:
        """The path of a page at the gateway that signs in at the console once, within minutes."""
        _, made = self.ask("POST", "/sign-in-codes")
        path: str = made["path"]
        return path

    def brokers(self) -> list[dict[str, Any]]:
        """All brokers."""
        found: list[dict[str, Any]] = []
        path = "/brokers?limit=500"
        _, page = self.ask("GET", path)
        found += page["items"]
        while cursor := page.get("next_cursor"):
            _, page = self.ask("GET", f"{path}&cursor={cursor}")
            found += page["items"]
        return found


def seeded(
    *, gateway_port: int, database_url: str, known: Mapping[str, str], mqtt_port: int = LOCAL_PORT
) -> dict[str, str]:
    """ADMIN_TOKEN and PROVISIONING_KEY, for the gateway on a port of loopback.

    Returns the `known` ones while that token is valid, and then makes nothing else, so that objects
    which an administrator deleted stay deleted. Otherwise it makes the token in the database at
    `database_url`, as the role mooring_registry. Raises `CannotRun`.
    """
    kept = {name: known.get(name, "") for name in ("ADMIN_TOKEN", "PROVISIONING_KEY")}
    if all(kept.values()) and _is_good(Administrator(gateway_port, kept["ADMIN_TOKEN"])):
        return kept
    try:
        token = asyncio.run(admin_token(database_url, "local admin", is_another=True))
    except MooringError as error:
        raise CannotRun(f"the first token cannot be made: {error.message}") from None
    admin = Administrator(gateway_port, token)
    _make_default_broker(admin, mqtt_port)
    admin.ask("POST", "/fleets", {"id": FLEET, "name": "Demo"}, allowed=(409,))
    _, key = admin.ask(
        "POST", "/provisioning-keys", {"fleet_id": FLEET, "description": "made by make run"}
    )
    return {"ADMIN_TOKEN": token, "PROVISIONING_KEY": key["key"]}


def _is_good(admin: Administrator) -> bool:
    # An invalid token may also have been tried too often.
    status, _ = admin.ask("GET", "/tokens/self", allowed=(401, 404, 429))
    return status == 200


def _make_default_broker(admin: Administrator, port: int) -> None:
    """Makes the local broker, and makes it the default if there is none."""
    body = {"name": LOCAL_BROKER, "protocol": "mqtt", "host": "localhost", "port": port}
    admin.ask("POST", "/brokers", body, allowed=(409,))
    brokers = admin.brokers()
    ours = next(broker for broker in brokers if broker["name"] == LOCAL_BROKER)
    # An operator may have made another broker the default, or deactivated this one.
    if ours["is_active"] and not any(broker["is_default"] for broker in brokers):
        admin.ask("POST", f"/brokers/{ours['id']}/default")
