"""What `python -m local` keeps: its home, the secrets there, and the database."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from mooring.broker.v1 import resolution_pb2, resolution_pb2_grpc
from mooring.registry.v1 import registration_pb2, registration_pb2_grpc

from chassis.identities import PROVABLE
from local.postgres import Postgres, free_port, prepare
from tests.supervised import (
    PATIENCE_S,
    Run,
    registered,
    until,
)


@pytest.mark.heavy
def test_missing_files_of_a_home_are_made(later_run: Run) -> None:
    # As if the first run had been killed after everything was made but before this was written.
    (later_run.home / "credentials.env").unlink()
    # As in a home of an earlier release, in which all services had one secret.
    shutil.rmtree(later_run.home / "callers")
    for name in ("ticket-keys.json", "ticket-public-keys.json"):
        (later_run.home / name).unlink()
    file, shared = later_run.home / "service-secret", secrets.token_urlsafe(32)
    file.write_text(shared)
    later_run.start()
    assert list(later_run.brokers()) == ["Local Broker"]
    made = {(later_run.home / "callers" / name).read_text() for name in PROVABLE}
    assert len(made - {shared}) == len(PROVABLE)
    assert all(len(secret) >= 32 for secret in made)
    credentials = later_run.credentials()
    assert credentials["SERVICE_SECRET_FILE"] == str(file)
    # Callers with the secret of that release are accepted and logged; no other secret is accepted.
    assert registered(later_run) == 201
    for service, ask in (("broker_service", resolved), ("registry_service", connections)):
        address = credentials[f"{service.upper()}_ADDRESS"]
        with grpc.insecure_channel(address) as channel:
            ask(channel, shared)
            for other in (secrets.token_urlsafe(32), credentials["PROVISIONING_KEY"]):
                with pytest.raises(grpc.RpcError) as refused:
                    ask(channel, other)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        said = (later_run.home / "logs" / f"{service}.log").read_text()
        assert "a caller uses the secret that services shared" in said
        assert shared not in said


def resolved(channel: Any, secret: str) -> None:
    """Asks the broker service for the broker of a device."""
    resolve: Any = resolution_pb2_grpc.ResolutionServiceStub(channel).ResolveBroker
    request = resolution_pb2.ResolveBrokerRequest(device_uuid="one")
    answer = resolve(request, timeout=PATIENCE_S, metadata=[("authorization", f"Bearer {secret}")])
    assert answer.broker.host == "localhost"


def connections(channel: Any, secret: str) -> None:
    """Asks the registry for the connection of a device."""
    get: Any = registration_pb2_grpc.RegistrationServiceStub(channel).GetConnections
    one = registration_pb2.ConnectionRequest(uuid="one", device_api_key="test-api-key")
    request = registration_pb2.GetConnectionsRequest(requests=[one])
    answer = get(request, timeout=PATIENCE_S, metadata=[("authorization", f"Bearer {secret}")])
    assert answer.outcomes[0].connection.username


def verify(run: Run) -> tuple[int, str]:
    """The exit status and the output of the audit log's check; see docs/audit-log.md."""
    ended = subprocess.run(
        [sys.executable, "-m", "registry_service.audit.sealing", "verify"],
        env={**os.environ, **run.credentials()},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_the_audit_log_is_sealed_and_missing_keys_are_named(later_run: Run) -> None:
    later_run.start()
    token = later_run.credentials()["ADMIN_TOKEN"]
    status, answer = later_run.ask("PATCH", "/api/v1/fleets/demo", token, {"name": "Sealed"})
    assert status == 200, answer
    until(lambda: ", 0 not sealed yet" in verify(later_run)[1])
    status, said = verify(later_run)
    assert status == 0
    assert "head " in said
    later_run.stop()
    (later_run.home / "audit-keys.json").unlink()
    assert "the last seal was made with key" in later_run.refusal()


@pytest.mark.parametrize(
    "name",
    [
        "callers/gateway",
        "ticket-keys.json",
        "server-keys.json",
        "encryption-keys.json",
        "audit-keys.json",
        "role-passwords.json",
    ],
)
def test_a_corrupt_secret_is_named_and_kept(later_run: Run, name: str) -> None:
    (later_run.home / name).write_text("{")
    said = later_run.refusal()
    assert said.startswith(f"mooring: {later_run.home / name} is corrupt: ")
    assert said.count("\n") == 1
    assert (later_run.home / name).read_text() == "{"


def test_lost_server_keys_are_not_replaced(later_run: Run) -> None:
    ring = later_run.home / "server-keys.json"
    ring.unlink()
    assert later_run.refusal().startswith(f"mooring: {ring} is gone: ")
    assert not ring.exists()


def test_a_database_of_ones_own(first_run: Run, tmp_path: Path) -> None:
    with Postgres(tmp_path / "own") as own:
        first_run.settings["MOORING_DATABASE_URL"] = prepare(own, "p/w")
        first_run.start()
        assert not (first_run.home / "postgres").exists()
        assert first_run.is_ready()
        with psycopg.connect(first_run.credentials()["DATABASE_URL"]) as connection:
            assert connection.info.port == own.port
        assert first_run.stop() == (0, "mooring: stopped\n")


def test_an_unreachable_database_of_ones_own_is_named(first_run: Run) -> None:
    first_run.settings["MOORING_DATABASE_URL"] = f"postgresql://x:sesame@127.0.0.1:{free_port()}/x"
    said = first_run.refusal()
    assert said.startswith("mooring: the database: connection failed")
    assert said.count("\n") == 1
    assert "sesame" not in said
