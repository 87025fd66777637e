"""A real Mosquitto with its dynamic security plugin, until the end of a test."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import pytest
import trustme

from chassis.address_policy import UNRESTRICTED
from local.postgres import free_port
from registry_service.admission.reconciler.dynamic_security import Command, Wanted
from registry_service.admission.reconciler.first_fill import first_fill, write
from registry_service.admission.reconciler.mosquitto_client import ControlSettings, DynamicSecurity
from registry_service.admission.reconciler.planning import Plan, plan
from registry_service.password_hashes import PasswordHash
from tests import debian
from tests.broker_versions import MOSQUITTO, Version
from tests.documented import block, placed
from tests.mosquitto import plugin
from tests.supervised import until

USERNAME, PASSWORD = "mooring-login", "the login's own"


FAILED = 0x80
NOT_AUTHORIZED = 0x87
# It takes milliseconds; a busy machine may need more.
SOON_S = 5.0


@dataclass(frozen=True)
class Filters:
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


def device(name: str, password: str = "", grants: Filters | None = None) -> Wanted:
    topics = (f"iot/device/{name}/#",)
    secret = password or f"the secret of {name}"
    return Wanted(name, lambda: secret, f"v{len(password)}", grants or Filters(topics, topics))


def filled(fleet: Iterable[Wanted]) -> str:
    return first_fill(fleet, control_username=USERNAME, control_password=PASSWORD)


A, B = device("a"), device("b")
OBSERVER = device("observer", grants=Filters(("#",), ("#",)))
FLEET = [A, B, OBSERVER]


class DynamicMosquitto:
    """Listens on 127.0.0.1, and holds the clients of its file."""

    def __init__(
        self,
        folder: Path,
        text: str | None = None,
        *,
        ca: trustme.CA | None = None,
        version: Version = MOSQUITTO[0],
    ) -> None:
        """`text` is the content of the plugin's file: by default only Mooring's login."""
        self.folder = folder
        self.port = free_port()
        self.file = folder / "dynamic-security.json"
        write(self.file, text or filled([]))
        program, libraries = debian.program("mosquitto", version.suite)
        self._command: list[Path | str] = [program, "-c", folder / "mosquitto.conf"]
        self._environment = {**os.environ, **libraries}
        conf = placed(
            block("brokers/mosquitto.md", "conf", "# dynamic security"), folder, self.port
        )
        found = plugin("mosquitto_dynamic_security.so", version)
        conf = re.sub(r"^plugin .*$", f"plugin {found}", conf, flags=re.MULTILINE)
        if ca is None:
            conf = re.sub(r"^(cert|key)file .*\n", "", conf, flags=re.MULTILINE)
        else:
            issued = ca.issue_cert("localhost")
            issued.private_key_pem.write_to_path(folder / "server.key")
            issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
        # Started by root it would drop its rights, and could not read its files.
        user = f"user {'root' if os.geteuid() == 0 else 'nobody'}\n"
        (folder / "mosquitto.conf").write_text(conf + user)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "DynamicMosquitto":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.thaw()
            self.stop()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None
        return self._process

    def start(self) -> None:
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        until(lambda: self._listens() or self.process.poll() is not None)
        assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()

    def stop(self, way: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(way)
        self.process.wait(timeout=10)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def settings(self) -> ControlSettings:
        return ControlSettings("127.0.0.1", self.port, USERNAME, PASSWORD, policy=UNRESTRICTED)

    def client(self, username: str, password: str, **options: object) -> aiomqtt.Client:
        """Connects with MQTT 5 by default, because its answers contain reasons."""
        given: dict[str, object] = {"protocol": aiomqtt.ProtocolVersion.V5, "timeout": 20}
        return aiomqtt.Client(
            "127.0.0.1",
            self.port,
            username=username,
            password=password,
            **(given | options),  # type: ignore[arg-type]
        )

    def _listens(self) -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.port)) == 0


async def brought_in_step(broker: DynamicMosquitto, fleet: Iterable[Wanted]) -> Plan:
    """Brings the broker in step, returns what was done, and checks that nothing is left to do."""
    security, wanted = DynamicSecurity(broker.settings), list(fleet)
    made = plan(wanted, await security.state())
    await security.apply(made)
    assert plan(wanted, await security.state()).commands == ()
    return made


async def by_hand(broker: DynamicMosquitto, *commands: tuple[str, dict[str, object]]) -> None:
    """Runs a command as an administrator does with mosquitto_ctrl."""
    made = tuple(Command(name, "", arguments) for name, arguments in commands)
    await DynamicSecurity(broker.settings).apply(Plan(made))


def session(broker: DynamicMosquitto, one: Wanted, **options: object) -> aiomqtt.Client:
    return broker.client(one.username, password_of(one), **options)


def password_of(one: Wanted) -> str:
    assert not isinstance(one.password, PasswordHash)
    return one.password()


async def may_subscribe(client: aiomqtt.Client, topics: str) -> bool:
    [code] = await client.subscribe(topics, qos=1)
    return getattr(code, "value", code) < FAILED


async def is_refused(broker: DynamicMosquitto, one: Wanted, **options: object) -> bool:
    try:
        async with session(broker, one, **options):
            return False
    except aiomqtt.MqttCodeError as error:
        return getattr(error.rc, "value", error.rc) == NOT_AUTHORIZED


@asynccontextmanager
async def kicked(client: aiomqtt.Client) -> AsyncIterator[asyncio.Future[float]]:
    """Waits until the client's session was ended, soon after the end of the block."""

    async def gone() -> float:
        with pytest.raises(aiomqtt.MqttError):
            async for _ in client.messages:
                pass
        return time.perf_counter()

    task = asyncio.ensure_future(gone())
    await asyncio.sleep(0)
    yield task
    await asyncio.wait_for(task, SOON_S)
    client._disconnected.exception()
