"""Mosquittos that are probed, and what probes find."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from broker_service.brokers.testing.targets import Target
from broker_service.health.lateness import Lateness
from broker_service.health.prober import Prober, Timings
from chassis.address_policy import UNRESTRICTED, AddressPolicy
from chassis.process import background
from local.postgres import free_port
from tests import debian
from tests.broker_versions import MOSQUITTO
from tests.mosquitto import configured

USERNAME, PASSWORD = "probe", "of the probe"
FAST = Timings(interval_s=0.2, timeout_s=1.0, session_s=60.0, slow_ms=500.0)
PATIENCE_S = 20.0


@dataclass
class Broker:
    """A Mosquitto with TLS that can be killed, frozen and started again."""

    folder: Path
    broker_id: int = 7
    ca: trustme.CA = field(default_factory=trustme.CA)
    port: int = field(default_factory=free_port)
    # Of its certificate.
    not_after: datetime | None = None
    acl: str = "topic readwrite mooring/probe/#\n"

    def target(self, **changes: object) -> Target:
        """As Mooring probes it."""
        values: dict[str, object] = {
            "broker_id": self.broker_id,
            "protocol": "mqtts",
            "host": "localhost",
            "port": self.port,
            "path": None,
            "use_tls": True,
            "verify_certificate": True,
            "ca_pem": self.ca.cert_pem.bytes().decode(),
            "username": USERNAME,
            "password": PASSWORD,
            **changes,
        }
        return Target(**values)  # type: ignore[arg-type]

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """It runs until the end of the block."""
        certificate = self.ca.issue_cert(
            "localhost",
            not_before=datetime.now(UTC) - timedelta(days=30),
            not_after=self.not_after or datetime.now(UTC) + timedelta(days=30),
        )
        certificate.private_key_pem.write_to_path(self.folder / "server.key")
        certificate.cert_chain_pems[0].write_to_path(self.folder / "server.pem")
        (self.folder / "acl").write_text(f"user {USERNAME}\n{self.acl}")
        passwords = self.folder / "passwords"
        program, environment = debian.program("mosquitto", MOSQUITTO[0].suite)
        passwords.touch(mode=0o600)
        writer = program.parent.parent / "bin" / "mosquitto_passwd"
        subprocess.run(
            [writer, "-b", passwords, USERNAME, PASSWORD],
            check=True,
            env={**os.environ, **environment},
            capture_output=True,
        )
        conf = (
            f"listener {self.port} 127.0.0.1\n"
            f"certfile {self.folder}/server.pem\nkeyfile {self.folder}/server.key\n"
            f"allow_anonymous false\npassword_file {passwords}\nacl_file {self.folder}/acl\n"
        )
        with configured(self.folder, self.port, conf) as process:
            yield process


@asynccontextmanager
async def probing(
    *targets: Target, timings: Timings = FAST, policy: AddressPolicy = UNRESTRICTED
) -> AsyncIterator[Prober]:
    """A prober of these brokers."""
    lateness = Lateness()
    prober = Prober(policy, timings, lateness)
    async with background(lateness.watch()):
        await prober.follow({target.broker_id: target for target in targets})
        try:
            yield prober
        finally:
            await prober.follow({})


async def until(condition: Callable[[], bool]) -> None:
    """Waits until it is true. Raises `TimeoutError`."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)
