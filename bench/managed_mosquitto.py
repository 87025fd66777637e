"""A Mosquitto for the bench that `registry_service.worker` manages."""

import asyncio
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from bench.errors import CannotMeasure
from bench.http import PATIENCE_S, ask
from bench.programs import program
from bench.stage import Services
from local import mosquitto
from local.mosquitto import Login, Mosquitto
from local.postgres import free_port

ADDRESS = "127.0.0.1"
# How long the services may take to check the broker, or to answer a device.
LONGEST_S = 60.0
POLL_S = 0.02


@dataclass(frozen=True)
class ManagedMosquitto:
    """The running broker."""

    version: str
    port: int
    login: Login

    def used_as_default(self, services: Services) -> None:
        """Makes it broker 1, and returns when it is in step.

        Raises `CannotMeasure`.
        """
        change = {
            "protocol": "mqtt",
            "host": ADDRESS,
            "port": self.port,
            "ca_cert": None,
            "management": "mosquitto",
            "username": self.login.username,
            "password": self.login.password,
        }
        token = services.admin_token
        ask(services.gateway_port, "PATCH", "/api/v1/brokers/1", token, change)
        deadline = time.monotonic() + LONGEST_S
        while True:
            state = ask(services.gateway_port, "GET", "/api/v1/brokers/1/enforcement", token)
            if state["clients"] == 0 and not state["problem"]:
                return
            if time.monotonic() > deadline:
                raise CannotMeasure(f"Mosquitto is not as it should be: {state['problem']}")
            time.sleep(POLL_S)


@contextmanager
def empty_mosquitto() -> Iterator[ManagedMosquitto]:
    """Runs a Mosquitto without devices until the end of the block. Raises `CannotRun`."""
    path, environment = program(mosquitto.MOSQUITTO)
    found = mosquitto.installed_as(path)
    if found is None:
        raise CannotMeasure(f"this Mosquitto has no {mosquitto.PLUGIN}")
    login = Login(mosquitto.USERNAME, token_urlsafe(32))
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as name:
        folder = Path(name)
        # A Mosquitto that root starts runs as another user, which needs access to this folder.
        folder.chmod(0o711)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        broker = Mosquitto(
            found, folder / "data", port, login, folder / "log", lock, environment=environment
        )
        try:
            broker.start()
            yield ManagedMosquitto(_version(path, environment), port, login)
            broker.demand_alive()
        finally:
            broker.stop()
            os.close(lock)


async def registered(services: Services, uuid: str, key: str) -> Mapping[str, Any]:
    """The answer to a registration on its own connection. Raises `CannotMeasure`."""
    body = json.dumps(
        {"uuid": uuid, "deviceName": uuid, "deviceType": "bench", "deviceApiKey": f"key-of-{uuid}"}
    ).encode()
    head = (
        "POST /api/v1/device/register HTTP/1.1\r\n"
        "Host: localhost\r\n"
        f"Authorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(ADDRESS, services.gateway_port)
    try:
        writer.write(head.encode() + body)
        async with asyncio.timeout(LONGEST_S):
            status_and_headers, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if not status_and_headers.startswith(b"HTTP/1.1 201 "):
        raise CannotMeasure(f"a registration is answered {status_and_headers.splitlines()[:1]}")
    found: Mapping[str, Any] = json.loads(answer)
    return found


def _version(path: Path, environment: Mapping[str, str]) -> str:
    # Its exit status depends on the version.
    said = subprocess.run(
        [path, "-h"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    found = re.search(r"^mosquitto version (\S+)$", said.stdout, re.MULTILINE)
    if found is None:
        raise CannotMeasure("this Mosquitto does not say its version")
    return found[1]
