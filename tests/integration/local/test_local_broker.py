"""Mooring manages the local broker, and its Mosquitto starts again after any kind of end."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from local.local_broker import entrusted
from local.locks import locked
from local.mosquitto import Installed, Login, Mosquitto
from local.postgres import free_port
from local.probes import is_listening
from local.seed import Administrator
from tests import debian
from tests.broker_versions import Version
from tests.integration.registry_service.admission.reconciler.test_reconciler import (
    is_let_in,
    login,
    reconciling,
    until_let_in,
)
from tests.stack import Stack
from tests.supervised import until

LOGIN = Login("mooring-control", "p" * 32)
PORT = 5883


async def entrust(stack: Stack, *, login: Login = LOGIN, port: int = PORT) -> int | None:
    gateway = int(stack.gateway_url.rpartition(":")[2])
    admin = Administrator(gateway, stack.admin_token)
    return await asyncio.to_thread(entrusted, admin, login, port)


async def broker_of(stack: Stack) -> dict[str, Any]:
    broker: dict[str, Any] = (
        await stack.admin("GET", f"/brokers/{stack.default_broker_id}")
    ).json()
    return broker


async def test_the_local_broker_becomes_managed_once_and_follows_changes(stack: Stack) -> None:
    assert await entrust(stack) == stack.default_broker_id
    broker = await broker_of(stack)
    found = {name: broker[name] for name in ("management", "username", "has_password", "port")}
    assert found == {
        "management": "mosquitto",
        "username": "mooring-control",
        "has_password": True,
        "port": PORT,
    }
    # A later start changes nothing.
    assert await entrust(stack) == stack.default_broker_id
    assert (await broker_of(stack))["revision"] == broker["revision"]
    # Another port, or a new password after a lost one, is set at the broker.
    assert await entrust(stack, port=5884) == stack.default_broker_id
    assert (await broker_of(stack))["port"] == 5884
    lost = Login(LOGIN.username, "q" * 32)
    assert await entrust(stack, port=5884, login=lost) == stack.default_broker_id
    assert (await broker_of(stack))["revision"] == broker["revision"] + 2


@pytest.mark.parametrize(
    "change",
    [
        {"host": "mqtt.example.com"},
        {"port": 1883},
        {"protocol": "ws"},
        {"username": "service"},
        {"username": "u", "password": "p", "management": "mosquitto"},
        {"name": "Ours"},
    ],
)
async def test_a_broker_that_an_operator_has_changed_stays_as_it_is(
    stack: Stack, change: dict[str, Any]
) -> None:
    path = f"/brokers/{stack.default_broker_id}"
    assert (await stack.admin("PATCH", path, json=change)).status_code == 200
    before = await broker_of(stack)
    assert await entrust(stack) is None
    assert await broker_of(stack) == before


async def test_an_inactive_or_deleted_broker_stays_as_it_is(stack: Stack) -> None:
    other_id = await stack.create_broker("Other")
    await stack.admin("POST", f"/brokers/{other_id}/default")
    path = f"/brokers/{stack.default_broker_id}"
    await stack.admin("PATCH", path, json={"is_active": False})
    assert await entrust(stack) is None
    assert (await stack.admin("DELETE", path)).status_code == 204
    assert await entrust(stack) is None


class Served:
    """The Mosquitto of a home."""

    def __init__(self, folder: Path, lock: int, version: Version) -> None:
        program, libraries = debian.program("mosquitto", version.suite)
        plugin = next(program.parent.parent.glob("lib/**/mosquitto_dynamic_security.so"))
        self.folder = folder / "a folder"
        self.port = free_port()
        self.log = folder / "logs" / "mosquitto.log"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LD_LIBRARY_PATH", libraries.get("LD_LIBRARY_PATH", ""))
            found = Installed(program, plugin)
            self.process = Mosquitto(found, self.folder, self.port, LOGIN, self.log, lock)

    @property
    def file(self) -> Path:
        return self.folder / "dynamic-security.json"

    def client(self, username: str, password: str, **options: Any) -> aiomqtt.Client:
        return aiomqtt.Client(
            "127.0.0.1", self.port, username=username, password=password, **options
        )

    def users(self) -> set[int]:
        """The real, effective and saved user ids of its process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [uids] = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")]
        return {int(uid) for uid in uids}

    def start(self) -> None:
        self.process.start()
        until(lambda: is_listening(self.port))

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.stop()


@pytest.fixture
def served(tmp_path: Path, mosquitto_version: Version) -> Iterator[Served]:
    lock = locked(tmp_path / "lock", 0)
    assert lock is not None
    served = Served(tmp_path, lock, mosquitto_version)
    served.start()
    yield served
    served.process.stop()
    os.close(lock)


async def is_ours(served: Served) -> bool:
    with contextlib.suppress(aiomqtt.MqttError):
        async with served.client(LOGIN.username, LOGIN.password):
            return True
    return False


@pytest.mark.every_version("Mooring keeps its list of clients")
async def test_a_new_mosquitto_admits_only_moorings_login(served: Served) -> None:
    assert served.process.has_only_the_login
    assert await is_ours(served)
    for username, password in ((LOGIN.username, "wrong"), ("device_one", "x"), ("", "")):
        with pytest.raises(aiomqtt.MqttError):
            async with served.client(username, password):
                pass
    for path in (served.folder, *served.folder.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path
    assert served.users() == {os.geteuid() or 65534}
    # A later start leaves the file as it is.
    before = served.file.read_text()
    served.process.stop()
    served.start()
    assert not served.process.has_only_the_login
    assert served.file.read_text() == before
    assert await is_ours(served)


@pytest.mark.every_version("Mooring keeps its list of clients")
async def test_devices_are_admitted_again_after_its_file_was_damaged(
    stack: Stack, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await entrust(stack) is not None
    assert await entrust(stack, port=served.port) is not None
    one = await login(stack, "one")
    async with reconciling(stack, drift_check_s=0.5):
        await until_let_in(served, one, is_in=True)
        served.kill()
        served.start()
        assert not served.process.has_only_the_login
        assert await is_let_in(served, one)
        # As if it had been killed while it wrote its file: the end is missing.
        served.kill()
        cut_off = served.file.read_bytes()[:-100]
        served.file.write_bytes(cut_off)
        served.start()
        assert served.process.has_only_the_login
        assert "refused Mooring's login" in capsys.readouterr().err
        await until_let_in(served, one, is_in=True)
    assert served.file.with_name("dynamic-security.json.1").read_bytes() == cut_off
    # Nothing is reported when the file was simply deleted.
    served.kill()
    served.file.unlink()
    served.start()
    assert served.process.has_only_the_login
    assert await is_ours(served)
    assert capsys.readouterr().err == ""
