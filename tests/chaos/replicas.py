"""Replicas of the services: processes that share a database and nothing else."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from chassis.client import ServiceClient
from chassis.config import ServiceConfig
from chassis.trust import Credentials
from local.postgres import free_port
from local.services import HOST, INHERITED
from local.tether import tethered
from tests.stack import Database, Stack, prepared, seed
from tests.supervised import PATIENCE_S, POLL_S, REPOSITORY

# The default of the services. Other tests set 0, to be fast.
DRAIN_S = 0.3
# Health checks need no credentials.
NO_CREDENTIALS = Credentials(None, None, None)


class Replica:
    """One process of a service, which keeps its port when it is started again."""

    def __init__(self, module: str, port: int, config: ServiceConfig, log: Path) -> None:
        self.module = module
        self.address = f"{HOST}:{port}"
        self._log = log
        settings = config.model_dump(exclude_unset=True)
        self._environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._environment |= {name.upper(): str(value) for name, value in settings.items()}
        self._process: Process | None = None

    async def start(self) -> None:
        """Starts the process, and does not wait until it is ready."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tethered([sys.executable, "-m", self.module], signal.SIGKILL),
                cwd=REPOSITORY,
                env=self._environment,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def until_ready(self) -> None:
        while not await self._listens():
            assert self._living.returncode is None, self._log.read_text()
            await asyncio.sleep(POLL_S)
        if self.module == "gateway":
            async with httpx2.AsyncClient(base_url=f"http://{self.address}") as http:
                while (await http.get("/readyz")).status_code != 200:
                    await asyncio.sleep(POLL_S)
            return
        client = ServiceClient(self.address, NO_CREDENTIALS)
        while not await client.is_serving():
            await asyncio.sleep(POLL_S)
        await client.close()

    def hang(self) -> None:
        """Freezes the process; the kernel still accepts and acknowledges connections for it."""
        self._living.send_signal(signal.SIGSTOP)

    async def kill(self) -> None:
        assert await self.end(signal.SIGKILL) == -signal.SIGKILL, self._log.read_text()

    async def stop(self) -> None:
        """Ends the process with SIGTERM; it must exit with 0."""
        assert await self.end(signal.SIGTERM) == 0, self._log.read_text()

    async def end(self, way: signal.Signals) -> int:
        """Sends `way` unless the process has ended; returns its exit status."""
        if self._living.returncode is None:
            self._living.send_signal(way)
        async with asyncio.timeout(PATIENCE_S):
            return await self._living.wait()

    @property
    def _living(self) -> Process:
        assert self._process is not None
        return self._process

    async def _listens(self) -> bool:
        host, _, port = self.address.partition(":")
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


@dataclass(frozen=True)
class Replicas:
    """Two replicas of each service, and what was set up in their database."""

    stack: Stack
    brokers: list[Replica]
    registries: list[Replica]
    gateways: list[Replica]


async def until_ready(replicas: Sequence[Replica]) -> None:
    """Waits until each replica reports that it can serve."""
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(replica.until_ready() for replica in replicas))


def target_of(replicas: Sequence[Replica]) -> str:
    """One gRPC target for all of them."""
    return "ipv4:" + ",".join(replica.address for replica in replicas)


def two_of(
    module: str, configured: Callable[..., ServiceConfig], home: Path, **also: str
) -> list[Replica]:
    """Two replicas that are not started yet."""
    ports = [free_port(), free_port()]
    return [
        Replica(
            module,
            port,
            configured(bind_port=port, **{"drain_s": DRAIN_S, **also}),
            home / f"{module}-{port}.log",
        )
        for port in ports
    ]


@contextlib.asynccontextmanager
async def running(*replicas: Replica) -> AsyncIterator[None]:
    """Starts all replicas, and kills them when the block ends."""
    async with contextlib.AsyncExitStack() as exits:
        for replica in replicas:
            await replica.start()
            exits.push_async_callback(replica.end, signal.SIGKILL)
        await until_ready(replicas)
        yield


@contextlib.asynccontextmanager
async def two_of_each(database: Database, home: Path) -> AsyncIterator[Replicas]:
    """Two gateways, two registries, two broker services; a fleet, a key, a default broker."""
    async with contextlib.AsyncExitStack() as exits:
        stack = prepared(database, home, exits)
        brokers = two_of("broker_service", stack.broker_config, home)
        to_brokers = {"broker_service_address": target_of(brokers)}
        registries = two_of("registry_service", stack.registry_config, home, **to_brokers)
        to_both = {**to_brokers, "registry_service_address": target_of(registries)}
        gateways = two_of("gateway", stack.gateway_config, home, **to_both)
        await exits.enter_async_context(running(*brokers, *registries, *gateways))
        stack.broker = stack.peer_at(target_of(brokers))
        exits.push_async_callback(stack.broker.close)
        stack.registry = stack.peer_at(target_of(registries))
        exits.push_async_callback(stack.registry.close)
        await seed(stack)
        yield Replicas(stack, brokers, registries, gateways)
