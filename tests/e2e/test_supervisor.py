"""`python -m local`, with the real services: how it starts, what it keeps, how it ends."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from mooring.broker.v1 import resolution_pb2, resolution_pb2_grpc
from mooring.registry.v1 import registration_pb2, registration_pb2_grpc
from pydantic_settings import BaseSettings

from broker_service.config import BrokerServiceConfig
from chassis.identities import PROVABLE
from gateway.config import GatewayConfig
from local.config import LocalConfig
from local.home import Home
from local.mosquitto import installed
from local.postgres import Postgres, free_port, prepare
from local.probes import is_listening, is_ready
from local.services import INHERITED, environments
from registry_service.access.config import AccessConfig
from registry_service.background.config import BackgroundConfig
from registry_service.config import RegistryServiceConfig
from registry_service.enforcement.config import EnforcementConfig
from registry_service.sealing.config import SealingConfig
from tests import debian
from tests.supervised import (
    ACCESS,
    ENFORCEMENT,
    PATIENCE_S,
    SEALER,
    SERVICES,
    Run,
    descendants,
    named,
    until,
)

# How often each process is killed.
TIMES = 7
PORTS = {
    "broker_service": "BROKER_PORT",
    "registry_service": "REGISTRY_PORT",
    "gateway": "GATEWAY_PORT",
    ACCESS: "ACCESS_PORT",
}


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after its first run."""
    run = Run(tmp_path_factory.mktemp("first") / "home")
    try:
        run.start()
        assert run.stop() == (0, "mooring: stopped\n")
    finally:
        run.end()
    return run.home


@pytest.fixture
def run(used_home: Path, tmp_path: Path) -> Iterator[Run]:
    """A run that has not begun, on a used home of its own."""
    home = tmp_path / "home"
    shutil.copytree(used_home, home)
    run = Run(home)
    yield run
    run.end()


@pytest.fixture
def first_run(tmp_path: Path) -> Iterator[Run]:
    """A run that has not begun, and will be the first on its home."""
    run = Run(tmp_path / "home")
    yield run
    run.end()


def test_a_first_run(first_run: Run) -> None:
    began = time.monotonic()
    said = first_run.start()
    assert time.monotonic() - began < 30
    home, gateway = first_run.home, f"http://127.0.0.1:{first_run.settings['GATEWAY_PORT']}"
    assert f"{gateway}\n" in said
    assert f"{gateway}/docs\n" in said
    assert f"{home / 'credentials.env'}\n" in said
    assert installed() or "  mqtt         no Mosquitto 2 here: apt install mosquitto" in said
    assert home.stat().st_mode & 0o777 == 0o700
    for name in (
        "credentials.env",
        "callers/gateway",
        "callers/hashes.json",
        "ticket-keys.json",
        "server-keys.json",
        "audit-keys.json",
        "role-passwords.json",
    ):
        assert (home / name).stat().st_mode & 0o777 == 0o600, name

    credentials = first_run.credentials()
    assert credentials["GATEWAY_URL"] == gateway
    assert ("MQTT_URL" in credentials) == (installed() is not None)
    assert credentials["RESOLVER_SECRET_FILE"] == str(home / "callers" / "resolver")
    # No home of this release has the secret that all services of earlier ones shared.
    assert "SERVICE_SECRET_FILE" not in credentials
    assert not (home / "service-secret").exists()
    for service in ("BROKER", "REGISTRY"):
        address = f"127.0.0.1:{first_run.settings[f'{service}_PORT']}"
        assert credentials[f"{service}_SERVICE_ADDRESS"] == address
    with psycopg.connect(credentials["DATABASE_URL"]) as connection:
        default = "SELECT current_user, name, host, port FROM mqtt_broker_config WHERE is_default"
        found = connection.execute(default).fetchall()
    mqtt_port = int(first_run.settings["MQTT_PORT"])
    assert found == [("mooring_operator", "Local Broker", "localhost", mqtt_port)]
    assert list(first_run.brokers()) == ["Local Broker"]

    curl, environment = debian.program("curl")
    environment["PATH"] = f"{curl.parent}:{environment['PATH']}"
    line = said[said.index("curl -X POST") : said.index("Ctrl-C")]
    answer = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, check=True, env=environment
    )
    device = json.loads(answer.stdout)
    assert (device["uuid"], device["fleetId"]) == ("test-device-123", "demo")
    assert device["mqtt"]["broker"] == f"mqtt://localhost:{mqtt_port}"

    secrets = [credentials["ADMIN_TOKEN"], credentials["PROVISIONING_KEY"]]
    secrets += json.loads((home / "role-passwords.json").read_text()).values()
    secrets += [
        *((home / "callers" / name).read_text().strip() for name in PROVABLE),
        device["mqtt"]["password"],
    ]
    for log in (home / "logs").iterdir():
        assert not [secret for secret in secrets if secret in log.read_text()], log

    family = first_run.family()
    assert {name: family.child(name) for name in (*SERVICES, SEALER, ENFORCEMENT, "postgres")}
    assert first_run.stop() == (0, "mooring: stopped\n")
    family.wait_for_the_end()


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (200, b'{"status": "ready", "checks": {}}', True),
        (200, b'{"status": "degraded", "checks": {}}', False),
        (503, b'{"status": "unavailable", "checks": {}}', False),
        (200, b"another server", False),
        (200, b"[]", False),
    ],
)
def test_ready_is_said_with_all_that_the_gateway_depends_on(
    status: int, said: bytes, expected: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as asking:
        found = asking.submit(is_ready, listening.getsockname()[1])
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(said)}\r\n\r\n"
            connection.sendall(head.encode() + said)
            assert found.result() is expected


def test_each_setting_that_a_service_is_given_is_one_that_it_has(tmp_path: Path) -> None:
    config = LocalConfig(
        mqtt_broker_url="mqtt://h",
        log_level="INFO",
        registry_metrics_port=1,
        broker_metrics_port=2,
        background_metrics_port=3,
        access_metrics_port=4,
        enforcement_metrics_port=5,
    )
    roles = ("mooring_broker", "mooring_registry", "mooring_sealer", "mooring_access")
    passwords = dict.fromkeys(roles, "p")
    told = environments(
        config, "postgresql://h/d", passwords, Home(tmp_path).trust(), *[tmp_path] * 3
    )
    kinds: tuple[type[BaseSettings], ...] = (
        BrokerServiceConfig,
        RegistryServiceConfig,
        GatewayConfig,
        BackgroundConfig,
        AccessConfig,
        SealingConfig,
        EnforcementConfig,
    )
    for kind, environment in zip(kinds, told.values(), strict=True):
        known = {name.upper() for name in kind.model_fields}
        assert environment.keys() - known <= set(INHERITED), kind
    settings = {name.upper() for kind in kinds for name in kind.model_fields}
    assert config.service_ports().keys() <= settings


def test_a_later_run_finds_everything(run: Run) -> None:
    before = {
        name: (run.home / name).read_text()
        for name in (
            "callers/gateway",
            "ticket-keys.json",
            "server-keys.json",
            "audit-keys.json",
            "role-passwords.json",
        )
    }
    kept = run.credentials()
    began = time.monotonic()
    run.start()
    # Five seconds are promised; two cores that also run other tests get some more.
    assert time.monotonic() - began < 30
    assert {name: (run.home / name).read_text() for name in before} == before
    now = run.credentials()
    for name in ("ADMIN_TOKEN", "PROVISIONING_KEY"):
        assert now[name] == kept[name]
    assert list(run.brokers()) == ["Local Broker"]
    assert (run.home / "logs" / "gateway.log.1").exists()


def test_what_was_deleted_is_not_made_again(run: Run) -> None:
    run.start()
    assert list(run.brokers()) == ["Local Broker"]
    token = run.credentials()["ADMIN_TOKEN"]
    other = {"name": "Another", "protocol": "mqtt", "host": "elsewhere", "port": 1883}
    status, answer = run.ask("POST", "/api/v1/brokers", token, other)
    assert status == 201, answer
    ids = run.brokers()
    run.ask("POST", f"/api/v1/brokers/{ids['Another']}/default", token)
    run.ask("DELETE", f"/api/v1/brokers/{ids['Local Broker']}", token)
    assert list(run.brokers()) == ["Another"]
    run.stop()
    run.start()
    assert list(run.brokers()) == ["Another"]


def test_what_a_home_lacks_is_made(run: Run) -> None:
    # As if its first run had been killed after all was made and before it was written down.
    (run.home / "credentials.env").unlink()
    # As an earlier release made it: all services had one secret.
    shutil.rmtree(run.home / "callers")
    for name in ("ticket-keys.json", "ticket-public-keys.json"):
        (run.home / name).unlink()
    file, shared = run.home / "service-secret", secrets.token_urlsafe(32)
    file.write_text(shared)
    run.start()
    assert list(run.brokers()) == ["Local Broker"]
    made = {(run.home / "callers" / name).read_text() for name in PROVABLE}
    assert len(made - {shared}) == len(PROVABLE)
    assert all(len(secret) >= 32 for secret in made)
    credentials = run.credentials()
    assert credentials["SERVICE_SECRET_FILE"] == str(file)
    # Callers of that release are let in, and the log names them; with another secret none is.
    assert registered(run) == 201
    for service, ask in (("broker_service", resolved), ("registry_service", connections)):
        address = credentials[f"{service.upper()}_ADDRESS"]
        with grpc.insecure_channel(address) as channel:
            ask(channel, shared)
            for other in (secrets.token_urlsafe(32), credentials["PROVISIONING_KEY"]):
                with pytest.raises(grpc.RpcError) as refused:
                    ask(channel, other)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        said = (run.home / "logs" / f"{service}.log").read_text()
        assert "a caller shows the secret that services shared" in said
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


@pytest.mark.parametrize(
    "way", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.heavy)]
)
def test_it_stops_when_told_to(run: Run, way: signal.Signals) -> None:
    run.start()
    family = run.family()
    assert run.stop(way) == (0, "mooring: stopped\n")
    family.wait_for_the_end()
    assert "database system is shut down" in (run.home / "logs" / "postgres.log").read_text()


@pytest.mark.parametrize(
    "moment",
    [
        "logs/gateway.log",
        # The earlier ones, whose runs start all over again.
        pytest.param("postgres/data.unfinished", marks=pytest.mark.heavy),
        pytest.param("logs/postgres.log", marks=pytest.mark.heavy),
    ],
)
def test_it_stops_while_it_starts(first_run: Run, moment: str) -> None:
    first_run.begin()
    until((first_run.home / moment).exists)
    family = first_run.family()
    assert first_run.stop(signal.SIGINT) == (0, "mooring: stopped\n")
    family.wait_for_the_end()
    first_run.start()


def test_nothing_outlives_a_killed_supervisor(run: Run) -> None:
    run.start()
    family = run.family()
    run.stop(signal.SIGKILL)
    # At once: what is left is waited for.
    run.start()
    family.wait_for_the_end()


def test_nothing_outlives_a_killed_parent(run: Run) -> None:
    # As make is: it starts the supervisor and waits for it.
    parent = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    run.command = [sys.executable, "-c", parent, *run.command]
    run.start()
    family = run.family()
    run.stop(signal.SIGKILL)
    family.wait_for_the_end()


@pytest.mark.parametrize(
    "setting", ["GATEWAY_PORT", "REGISTRY_PORT", "BROKER_PORT", "POSTGRES_PORT"]
)
def test_a_taken_port_is_named(first_run: Run, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        first_run.settings[setting] = str(port)
        said = first_run.refusal()
    assert said == f"mooring: {setting}: port {port} is taken by another process\n"
    assert not (first_run.home / "logs").exists()


def test_two_runs_on_one_home_are_refused(run: Run) -> None:
    run.start()
    said = Run(run.home).refusal()
    assert said == f"mooring: MOORING_HOME: another `make run` is using {run.home}\n"
    assert run.is_ready()


def test_every_fault_of_the_settings_is_named(first_run: Run) -> None:
    first_run.settings |= {"GATEWAY_PORT": "http", "BROKER_PORT": "0"}
    said = first_run.refusal()
    assert "GATEWAY_PORT: " in said
    assert "BROKER_PORT: " in said
    assert not first_run.home.exists()


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
def test_a_corrupt_secret_is_named_and_kept(run: Run, name: str) -> None:
    (run.home / name).write_text("{")
    said = run.refusal()
    assert said.startswith(f"mooring: {run.home / name} is corrupt: ")
    assert said.count("\n") == 1
    assert (run.home / name).read_text() == "{"


def test_lost_server_keys_are_not_replaced(run: Run) -> None:
    ring = run.home / "server-keys.json"
    ring.unlink()
    assert run.refusal().startswith(f"mooring: {ring} is gone: ")
    assert not ring.exists()


def verify(run: Run) -> tuple[int, str]:
    """What the operator is told of the audit log; see docs/audit-log.md."""
    ended = subprocess.run(
        [sys.executable, "-m", "registry_service.sealing", "verify"],
        env={**os.environ, **run.credentials()},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_the_audit_log_is_sealed_and_its_keys_are_missed(run: Run) -> None:
    run.start()
    token = run.credentials()["ADMIN_TOKEN"]
    status, answer = run.ask("PATCH", "/api/v1/fleets/demo", token, {"name": "Sealed"})
    assert status == 200, answer
    until(lambda: ", 0 not sealed yet" in verify(run)[1])
    status, said = verify(run)
    assert status == 0
    assert "head " in said
    run.stop()
    (run.home / "audit-keys.json").unlink()
    assert "the last seal was made with key" in run.refusal()


def test_a_service_that_cannot_start_gives_its_reason(run: Run) -> None:
    run.settings["LOG_LEVEL"] = "CHATTY"
    said = run.refusal()
    assert "ended with status 1" in said
    assert "LOG_LEVEL" in said


@contextmanager
def dead_and_port_taken(run: Run, name: str, setting: str) -> Iterator[None]:
    """Kills the process `name`; until the block ends, another process listens on its port.

    Enters the block when the run has said so.
    """
    port, squatters = int(run.settings[setting]), ExitStack()

    def is_taken() -> bool:
        with suppress(OSError):
            squatters.enter_context(socket.create_server(("127.0.0.1", port)))
            return True
        return False

    # It is stopped, so that it does not start the process again before the port is taken.
    run.process.send_signal(signal.SIGSTOP)
    with squatters:
        try:
            os.kill(run.child(name), signal.SIGKILL)
            until(is_taken)
        finally:
            run.process.send_signal(signal.SIGCONT)
        service = "PostgreSQL" if name == "postgres" else name
        expected = f"{service}: {setting}: port {port} is taken by another process\n"
        until(lambda: expected in run.heard())
        yield


def test_a_service_that_dies_is_started_again(run: Run) -> None:
    run.start()
    services = (*SERVICES, ACCESS, SEALER, ENFORCEMENT)
    for service in services:
        before = {name: run.child(name) for name in services}
        if service in PORTS:
            with dead_and_port_taken(run, service, PORTS[service]):
                assert service == "gateway" or run.ask("GET", "/healthz")[0] == 200
                living = descendants(run.process.pid)
                assert {name for name in services if named(name, living)} == {*services} - {service}
        else:
            os.kill(before[service], signal.SIGKILL)
        until(
            lambda: bool(
                set(named(service, descendants(run.process.pid))) - {before[service]}  # noqa: B023
            )
        )
        until(run.is_ready)
        if service in PORTS:
            until(lambda: is_listening(int(run.settings[PORTS[service]])))  # noqa: B023
        after = {name: run.child(name) for name in services}
        assert {name for name in services if after[name] != before[name]} == {service}
    status, said = run.stop()
    assert status == 0
    for service in services:
        assert f"{service} ended with SIGKILL" in said


# It waits through every pause, the longest too; above, each process dies once.
@pytest.mark.heavy
def test_no_process_that_keeps_dying_ends_the_others(run: Run) -> None:
    run.start()
    services = (*SERVICES, SEALER, ENFORCEMENT)
    killed: dict[str, set[int]] = {name: set() for name in services}

    def have_all_died_often() -> bool:
        commands = descendants(run.process.pid)
        for name, pids in killed.items():
            for pid in named(name, commands):
                if pid not in pids and len(pids) < TIMES:
                    os.kill(pid, signal.SIGKILL)
                    pids.add(pid)
        assert run.process.poll() is None
        return all(len(pids) == TIMES for pids in killed.values())

    until(have_all_died_often, 2 * PATIENCE_S)
    until(run.is_ready)
    status, said = run.stop()
    assert status == 0
    for name in services:
        assert said.count(f"mooring: {name} ended with SIGKILL") == TIMES
    # Each pause is twice the one before, up to the longest.
    for pause in ("0.2", "0.4", "0.8", "1.6", "3.2", "6.4", "10"):
        assert said.count(f"next start in {pause} s\n") >= len(services), pause


def registered(run: Run) -> int:
    """The status of a registration; with 503 it says when to try again."""
    key = run.credentials()["PROVISIONING_KEY"]
    body = {
        "uuid": "one",
        "deviceName": "One",
        "deviceType": "test",
        "deviceApiKey": "test-api-key",
    }
    answer = run.answer("POST", "/api/v1/device/register", key, body)
    assert answer.status != 503 or int(answer.headers["Retry-After"]) >= 1
    return answer.status


def test_postgresql_that_dies_is_started_again(run: Run) -> None:
    run.start()
    family = run.family()
    killed: set[int] = set()
    assert registered(run) == 201
    with dead_and_port_taken(run, "postgres", "POSTGRES_PORT"):
        assert run.ask("GET", "/healthz")[0] == 200
    until(lambda: registered(run) == 200)
    for _ in range(3):
        [postmaster] = set(named("postgres", descendants(run.process.pid))) - killed
        os.kill(postmaster, signal.SIGKILL)
        killed.add(postmaster)
        until(lambda: bool(set(named("postgres", descendants(run.process.pid))) - killed))
        # A device never hears that the connection is refused, or that the fault is ours.
        until(lambda: registered(run) == 200)
    services = {name: family.child(name) for name in SERVICES}
    assert {name: run.child(name) for name in SERVICES} == services
    status, said = run.stop()
    assert status == 0
    assert said.count("mooring: PostgreSQL ended") >= 4
    family.wait_for_the_end()


def test_data_that_postgresql_cannot_use_is_named_until_it_can(run: Run) -> None:
    run.start()
    data = run.home / "postgres" / "data" / "global" / "pg_control"
    kept = data.with_name("kept")
    data.rename(kept)
    os.kill(run.child("postgres"), signal.SIGKILL)

    def what_is_down() -> dict[str, str]:
        checks: dict[str, str] = json.loads(run.ask("GET", "/readyz")[1])["checks"]
        return checks

    until(lambda: what_is_down().get("registry/database") == "not_serving")
    assert run.ask("GET", "/readyz")[0] == 503
    assert registered(run) == 503
    log = run.home / "logs" / "postgres.log"
    until(lambda: log.read_text().count("could not find the database system") >= 2)
    kept.rename(data)
    until(run.is_ready)
    status, said = run.stop()
    assert status == 0
    assert "could not find the database system" in said


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
