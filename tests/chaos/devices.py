"""Devices that keep registering while processes are killed or stopped."""

import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.supervised import Run, until

# What a client may be answered while something is down: a registration, or "try again later".
PROMISED = {200, 201, 503}
GATEWAY_AWAY = 0


class Devices:
    """Four threads that register one device after another, each until it is registered."""

    def __init__(self, run: Run) -> None:
        until(run.is_ready)
        self._run = run
        self._key = run.credentials()["PROVISIONING_KEY"]
        self._stopped = threading.Event()
        # Other devices may be registered already.
        name = secrets.token_hex(4)
        self._threads = [
            threading.Thread(target=self._register, args=(f"{name}-t{n}",)) for n in range(4)
        ]
        self.statuses: Counter[int] = Counter()
        self.sources: Counter[str] = Counter()
        self.passwords: dict[str, str] = {}
        self.faults: list[object] = []

    def _register(self, name: str) -> None:
        number = 0
        try:
            while not self._stopped.is_set():
                uuid = f"{name}-{number}"
                try:
                    status, answer = self.register(uuid)
                except OSError:
                    # The gateway itself is down; the supervisor starts it again.
                    self.statuses[GATEWAY_AWAY] += 1
                    self._stopped.wait(0.05)
                    continue
                self.statuses[status] += 1
                if status not in PROMISED:
                    self.faults.append((status, answer))
                elif status != 503:
                    mqtt = json.loads(answer)["mqtt"]
                    self.sources[mqtt["source"] + (" stale" if mqtt.get("stale") else "")] += 1
                    self.passwords[uuid] = mqtt["password"]
                    number += 1
        except (ValueError, KeyError) as error:
            self.faults.append(error)

    def register(self, uuid: str) -> tuple[int, str]:
        body = {
            "uuid": uuid,
            "deviceName": uuid,
            "deviceType": "test",
            "deviceApiKey": f"key-of-{uuid}",
        }
        return self._run.ask("POST", "/api/v1/device/register", self._key, body)

    def more(self, count: int) -> None:
        """Waits until `count` more are registered."""
        wanted = len(self.passwords) + count
        until(lambda: len(self.passwords) >= wanted or bool(self.faults))
        assert not self.faults

    @contextmanager
    def arriving(self) -> Iterator["Devices"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            for thread in self._threads:
                thread.join()
        assert not self.faults

    def check_nothing_is_lost(self, database_url: str) -> None:
        """Each registered device is in the database once, with the same password, and counted."""
        until(self._run.is_ready)
        with psycopg.connect(database_url) as connection:
            rows = connection.execute("SELECT uuid FROM devices").fetchall()
            counted = connection.execute(
                "SELECT sum(devices_provisioned) FROM provisioning_keys"
            ).fetchall()
        uuids = [uuid for (uuid,) in rows]
        assert set(self.passwords) <= set(uuids)
        assert len(uuids) == len(set(uuids)) == counted[0][0]
        for uuid in list(self.passwords)[:: max(1, len(self.passwords) // 50)]:
            status, answer = self.register(uuid)
            assert status == 200
            assert json.loads(answer)["mqtt"]["password"] == self.passwords[uuid]
