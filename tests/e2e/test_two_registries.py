"""Races that two registry processes on one database must not lose."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from mooring.registry.v1 import provisioning_keys_pb2

from chassis.tickets import SigningKeys
from chassis.trust import Credentials
from gateway.config import GatewayConfig
from local.database import url_for
from local.postgres import free_port
from local.probes import is_serving
from tests.integration.registry_service.provisioning.test_batches import (
    reasons,
    register,
    registration,
)
from tests.stack import Peer
from tests.supervised import PATIENCE_S, REPOSITORY, Run, until


@contextlib.contextmanager
def another_registry(run: Run, log: Path) -> Iterator[str]:
    """One more registry process on the database of `run`; its address."""
    known, port = run.credentials(), free_port()
    passwords = msgspec.json.decode((run.home / "role-passwords.json").read_bytes())
    settings = {
        "BIND_PORT": str(port),
        "DATABASE_URL": url_for(
            "mooring_registry", passwords["mooring_registry"], known["DATABASE_URL"]
        ),
        "BROKER_SERVICE_ADDRESS": known["BROKER_SERVICE_ADDRESS"],
        "SERVER_KEYS_FILE": str(run.home / "server-keys.json"),
        "CALLER_SECRET_FILE": str(run.home / "callers" / "registry"),
        "CALLER_HASHES_FILE": str(run.home / "callers" / "hashes.json"),
        "TICKET_KEYS_FILE": str(run.home / "ticket-keys.json"),
    }
    command = [sys.executable, "-m", "registry_service"]
    with (
        log.open("wb") as written,
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        ) as process,
    ):
        try:
            address = f"127.0.0.1:{port}"
            until(lambda: process.poll() is not None or is_serving(address))
            assert process.poll() is None, log.read_text()
            yield address
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    run = Run(tmp_path_factory.mktemp("run") / "home")
    run.start()
    try:
        yield run
    finally:
        run.end()


@pytest.fixture(scope="module")
def other(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the second registry."""
    with another_registry(run, tmp_path_factory.mktemp("other") / "registry.log") as address:
        yield address


@pytest.fixture
async def registries(run: Run, other: str) -> AsyncIterator[list[Peer]]:
    """Both registries, each of which is called directly."""
    known = run.credentials()
    credentials = Credentials.of(GatewayConfig(caller_secret_file=run.home / "callers" / "gateway"))
    signing = SigningKeys.read(run.home / "ticket-keys.json")
    peers = [
        Peer(address, credentials, signing)
        for address in (known["REGISTRY_SERVICE_ADDRESS"], other)
    ]
    yield peers
    for peer in peers:
        await peer.close()


def counted(run: Run, key: str) -> tuple[int, int]:
    """How many devices `key` has made, and how many it has counted."""
    query = (
        "SELECT (SELECT count(*) FROM devices WHERE provisioned_by_key_id = k.id),"
        " k.devices_provisioned FROM provisioning_keys k WHERE k.id = %s"
    )
    with psycopg.connect(run.credentials()["DATABASE_URL"]) as connection:
        [(made, said)] = connection.execute(query, [key]).fetchall()
    return int(made), int(said)


async def limited_key(registry: Peer, max_devices: int) -> tuple[str, str]:
    """A key's id, and the key."""
    request = provisioning_keys_pb2.CreateProvisioningKeyRequest(
        fleet_id="demo", max_devices=max_devices
    )
    made = await registry.keys("CreateProvisioningKey", request)
    return made.provisioning_key.id, made.key


async def test_a_limited_key_makes_exactly_its_devices(run: Run, registries: list[Peer]) -> None:
    key_id, key = await limited_key(registries[0], 400)
    outcomes = await asyncio.gather(
        *(register(registries[n % 2], registration(f"d{n}", key)) for n in range(500))
    )
    found = reasons([outcome for call in outcomes for outcome in call])
    assert (found.count("created"), found.count("PROVISIONING_KEY_USED_UP")) == (400, 100)
    assert counted(run, key_id) == (400, 400)
    # No registry was asked for as many as the limit, so both have reached it together.
    made = [n for n, reason in enumerate(found) if reason == "created"]
    assert {n % 2 for n in made} == {0, 1}


async def test_one_uuid_many_times_at_once_is_one_identity(
    run: Run, registries: list[Peer]
) -> None:
    key_id, key = await limited_key(registries[0], 100)
    outcomes = await asyncio.gather(
        *(register(registries[n % 2], registration("one", key)) for n in range(16))
    )
    assert [reason for call in outcomes for reason in reasons(call)] == ["created"] * 16
    devices = [outcome.device for call in outcomes for outcome in call]
    identities = {(d.id, d.connection.username, d.connection.password) for d in devices}
    assert len(identities) == 1
    assert sum(device.created for device in devices) == 1
    assert counted(run, key_id) == (1, 1)
