"""The processes that `make run` starts, with a Mosquitto, as journeys use them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from tests.served import Served, client_of
from tests.supervised import Run

REGISTRY = "mooring_registry"


class RunDatabase:
    """The database of a run, as the registry uses it."""

    def __init__(self, url: str) -> None:
        """`url` has the role mooring_registry."""
        self._url = url

    def execute(self, statement: LiteralString, *values: Any) -> list[Any]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


class Installation(Served):
    """A run with its first broker, a fleet `demo` and a key for it."""

    def __init__(self, run: Run) -> None:
        """The run has started."""
        credentials = run.credentials()
        self.gateway_url = credentials["GATEWAY_URL"]
        self.admin_token = credentials["ADMIN_TOKEN"]
        self.provisioning_key = credentials["PROVISIONING_KEY"]
        passwords = json.loads((run.home / "role-passwords.json").read_text())
        url = f"postgresql://{REGISTRY}:{passwords[REGISTRY]}@127.0.0.1"
        self.database = RunDatabase(f"{url}:{run.settings['POSTGRES_PORT']}/mooring")

    async def made(self, path: str, **fields: Any) -> Any:
        """What an administrator's POST request makes."""
        answer = await self.admin("POST", path, json=fields)
        assert answer.is_success, answer.text
        return answer.json()

    async def changed(self, path: str, **fields: Any) -> Any:
        """What an administrator's PATCH request has changed."""
        answer = await self.admin("PATCH", path, json=fields)
        assert answer.is_success, answer.text
        return answer.json()

    async def found(self, path: str) -> Any:
        """What an administrator's GET request finds."""
        answer = await self.admin("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def device(self, uuid: str, **fields: Any) -> Any:
        """The MQTT part of the answer to a new device."""
        answer = await self.register(uuid, **fields)
        assert answer.status_code == 201, answer.text
        return answer.json()["mqtt"]

    async def asks(self, uuid: str) -> Any:
        """The answer to a device that asks for its broker now."""
        answer = await self.connection(uuid)
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def installed(home: Path) -> AsyncIterator[Installation]:
    """Starts all processes, and stops them at the end."""
    run = Run(home)
    run.find_mosquitto()
    try:
        run.start()
        installation = Installation(run)
        async with client_of(installation.gateway_url) as installation.http:
            yield installation
    finally:
        run.end()
