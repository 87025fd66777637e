"""Devices that register through many well-behaved clients; each client knows every gateway."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import httpx2

from registry_service.credentials import hash_of_password
from tests.stack import Stack
from tests.supervised import POLL_S

CLIENTS = 24
# Longer than a gateway lets any request wait.
PATIENCE_S = 20.0
# Retry-After is in whole seconds; tests try again sooner.
RETRY_AFTER_CAP_S = 0.05


@dataclass(frozen=True)
class Identity:
    """What a device was answered, and must be answered every time."""

    id: int
    username: str
    password: str


class Crowd:
    """Each client registers one device after another, each of them twice, until it is answered."""

    def __init__(self, urls: Sequence[str], key: str) -> None:
        self._urls = urls
        self._key = key
        self._is_over = False
        self.identities: dict[str, Identity] = {}
        self.statuses: Counter[int] = Counter()
        self.stale = 0
        # Failed connections, each with the URL of its gateway.
        self.lost: list[tuple[str, httpx2.TransportError]] = []
        self._fresh_in_a_row = 0

    @contextlib.asynccontextmanager
    async def arriving(self) -> AsyncIterator[None]:
        """Runs the clients during the block; an answer that is not promised ends the block."""
        async with contextlib.AsyncExitStack() as exits:
            gateways = [
                await exits.enter_async_context(
                    httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S)
                )
                for url in self._urls
            ]
            async with asyncio.TaskGroup() as clients:
                for number in range(CLIENTS):
                    start = number % len(gateways)
                    known = itertools.cycle(gateways[start:] + gateways[:start])
                    clients.create_task(self._client(f"client-{number}", known))
                try:
                    yield
                finally:
                    # The clients finish the device that they have begun.
                    self._is_over = True

    async def fresh(self, count: int) -> None:
        """Waits for `count` answers in a row without a stopgap."""
        self._fresh_in_a_row = 0
        async with asyncio.timeout(PATIENCE_S):
            while self._fresh_in_a_row < count:
                await asyncio.sleep(POLL_S)

    def forget(self) -> None:
        """Resets the counts; the answers of devices are kept."""
        self.statuses.clear()
        self.lost.clear()
        self.stale = 0

    def check_nothing_is_lost(self, stack: Stack) -> None:
        """Each device is in the database once, with the identity of its answer, counted once."""
        rows = stack.database.execute(
            "SELECT uuid, id, mqtt_username, credential_salt, mqtt_password_hash FROM devices"
        )
        found = {uuid: (id_, username) for uuid, id_, username, _, _ in rows}
        assert found == {uuid: (one.id, one.username) for uuid, one in self.identities.items()}
        for uuid, _, _, salt, kept in rows:
            assert hash_of_password(salt, self.identities[uuid].password) == kept
        counted = stack.database.execute("SELECT sum(devices_provisioned) FROM provisioning_keys")
        assert counted == [(len(rows),)]
        assert len(rows) == len(self.identities)

    async def _client(self, name: str, gateways: Iterator[httpx2.AsyncClient]) -> None:
        gateway = next(gateways)
        for number in itertools.count():
            if self._is_over:
                return
            uuid = f"{name}-{number}"
            for _ in range(2):
                async with asyncio.timeout(PATIENCE_S):
                    while (identity := await self._registered(uuid, gateway)) is None:
                        gateway = next(gateways)
                assert self.identities.setdefault(uuid, identity) == identity

    async def _registered(self, uuid: str, gateway: httpx2.AsyncClient) -> Identity | None:
        """None if the gateway did not answer; the client then takes the next gateway."""
        body = {
            "uuid": uuid,
            "deviceName": uuid,
            "deviceType": "test",
            "deviceApiKey": f"key-of-{uuid}",
        }
        headers = {"Authorization": f"Bearer {self._key}"}
        while True:
            try:
                answer = await gateway.post("/api/v1/device/register", json=body, headers=headers)
            except httpx2.TransportError as error:
                self.lost.append((str(gateway.base_url), error))
                return None
            self.statuses[answer.status_code] += 1
            if answer.status_code != 503:
                break
            await asyncio.sleep(min(float(answer.headers["Retry-After"]), RETRY_AFTER_CAP_S))
        assert answer.status_code in (200, 201), answer.text
        device = answer.json()
        mqtt = device["mqtt"]
        is_stale = mqtt.get("stale", False)
        self.stale += is_stale
        self._fresh_in_a_row = 0 if is_stale else self._fresh_in_a_row + 1
        return Identity(device["id"], mqtt["username"], mqtt["password"])
