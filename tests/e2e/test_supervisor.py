"""`python -m local`, with the real services: how it starts, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import psycopg
import pytest
from pydantic_settings import BaseSettings

from broker_service.config import BrokerServiceConfig, BrokerWorkerConfig
from chassis.identities import PROVABLE
from gateway.config import GatewayConfig
from local.config import LocalConfig
from local.home import Home
from local.mosquitto import installed
from local.probes import is_ready
from local.services import INHERITED, environments
from registry_service.admission.listener.config import AccessConfig
from registry_service.admission.reconciler.config import EnforcementConfig
from registry_service.audit.sealing.config import SealingConfig
from registry_service.config import RegistryServiceConfig, WorkerConfig
from tests import debian
from tests.supervised import (
    ACCESS,
    BROKER_WORKER,
    PATIENCE_S,
    SEALER,
    SERVICES,
    WORKER,
    Run,
    until,
)


def all_are_running(run: Run) -> bool:
    """Returns when each process has reported that it runs, and is ready."""
    token = run.credentials()["ADMIN_TOKEN"]

    def found() -> set[str]:
        _, answer = run.ask("GET", "/api/v1/system/processes", token)
        return {
            process["process"]
            for process in json.loads(answer)["items"]
            if process["state"] == "running" and process["is_ready"]
        }

    until(lambda: found() == {*SERVICES, SEALER, WORKER, BROKER_WORKER, ACCESS})
    return True


@contextmanager
def followed(run: Run) -> Iterator[HTTPResponse]:
    """A stream of changes whose first event has been read."""
    port = int(run.settings["GATEWAY_PORT"])
    headers = {"Authorization": f"Bearer {run.credentials()['ADMIN_TOKEN']}"}
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", "/api/v1/changes", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        while not response.readline().startswith(b"data: "):
            pass
        assert response.readline() == b"\n"
        yield response


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
    # A new home does not have the secret that all services of earlier releases shared.
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

    assert all_are_running(first_run)
    status, processes = first_run.ask("GET", "/api/v1/system/processes", credentials["ADMIN_TOKEN"])
    assert status == 200, processes
    secrets = [credentials["ADMIN_TOKEN"], credentials["PROVISIONING_KEY"]]
    secrets += json.loads((home / "role-passwords.json").read_text()).values()
    secrets += [
        *((home / "callers" / name).read_text().strip() for name in PROVABLE),
        device["mqtt"]["password"],
    ]
    assert not [secret for secret in secrets if secret in processes]
    for log in (home / "logs").iterdir():
        assert not [secret for secret in secrets if secret in log.read_text()], log

    family = first_run.family()
    assert {
        name: family.child(name) for name in (*SERVICES, SEALER, WORKER, BROKER_WORKER, "postgres")
    }
    with followed(first_run) as stream:
        stopping_at = time.monotonic()
        assert first_run.stop() == (0, "mooring: stopped\n")
        # An open stream of events does not hold up the stop, and its last chunk is not missing.
        rest = stream.read()
        assert not rest or rest.endswith(b"\n\n")
        assert time.monotonic() - stopping_at < 10
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
def test_ready_is_reported_when_all_dependencies_are_ready(
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
        gateway_port=5,
        registry_port=6,
        broker_port=7,
        access_port=8,
        registry_metrics_port=1,
        broker_metrics_port=2,
        worker_metrics_port=3,
        broker_worker_metrics_port=9,
        access_metrics_port=4,
    )
    roles = ("mooring_broker", "mooring_registry", "mooring_sealer", "mooring_access")
    passwords = dict.fromkeys(roles, "p")
    told = environments(
        config, "postgresql://h/d", passwords, Home(tmp_path).trust(), *[tmp_path] * 3
    )
    kinds: dict[str, tuple[type[BaseSettings], ...]] = {
        "broker_service": (BrokerServiceConfig,),
        "registry_service": (RegistryServiceConfig,),
        "gateway": (GatewayConfig,),
        "registry_service.access": (AccessConfig,),
        "registry_service.audit.sealing": (SealingConfig,),
        "registry_service.worker": (WorkerConfig, EnforcementConfig),
        "broker_service.worker": (BrokerWorkerConfig,),
    }
    assert kinds.keys() == told.keys()
    for service, environment in told.items():
        known = {name.upper() for kind in kinds[service] for name in kind.model_fields}
        assert environment.keys() - known <= set(INHERITED), service
    # `make run` has names of its own for what each process calls BIND_PORT and METRICS_PORT.
    for name, ports in (
        (
            "BIND_PORT",
            {"gateway": "5", "registry_service": "6", "broker_service": "7", ACCESS: "8"},
        ),
        (
            "METRICS_PORT",
            {
                "registry_service": "1",
                "broker_service": "2",
                WORKER: "3",
                ACCESS: "4",
                BROKER_WORKER: "9",
            },
        ),
    ):
        given = {service: told[service][name] for service in told if name in told[service]}
        assert given == ports


def test_a_later_run_finds_everything(later_run: Run) -> None:
    before = {
        name: (later_run.home / name).read_text()
        for name in (
            "callers/gateway",
            "ticket-keys.json",
            "server-keys.json",
            "audit-keys.json",
            "role-passwords.json",
        )
    }
    kept = later_run.credentials()
    began = time.monotonic()
    later_run.start()
    # Five seconds are promised; two cores that also run other tests get more time.
    assert time.monotonic() - began < 30
    assert {name: (later_run.home / name).read_text() for name in before} == before
    now = later_run.credentials()
    for name in ("ADMIN_TOKEN", "PROVISIONING_KEY"):
        assert now[name] == kept[name]
    assert list(later_run.brokers()) == ["Local Broker"]
    assert (later_run.home / "logs" / "gateway.log.1").exists()

    family = later_run.family()
    assert later_run.stop(signal.SIGINT) == (0, "mooring: stopped\n")
    family.wait_for_the_end()
    log = (later_run.home / "logs" / "postgres.log").read_text()
    assert "database system is shut down" in log


@pytest.mark.heavy
def test_a_hangup_stops_it(later_run: Run) -> None:
    later_run.start()
    family = later_run.family()
    assert later_run.stop(signal.SIGHUP) == (0, "mooring: stopped\n")
    family.wait_for_the_end()


@pytest.mark.parametrize(
    "moment",
    [
        "logs/gateway.log",
        # In the earlier moments nothing is made yet, so the next start takes as long as a first
        # one.
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


def test_a_killed_supervisor_leaves_nothing_behind_and_loses_nothing(later_run: Run) -> None:
    later_run.start()
    family = later_run.family()
    said = Run(later_run.home).refusal()
    home = later_run.home
    assert said == f"mooring: MOORING_HOME: another `make run` is using {home}\n"
    assert later_run.is_ready()
    assert list(later_run.brokers()) == ["Local Broker"]
    token = later_run.credentials()["ADMIN_TOKEN"]
    other = {"name": "Another", "protocol": "mqtt", "host": "elsewhere", "port": 1883}
    status, answer = later_run.ask("POST", "/api/v1/brokers", token, other)
    assert status == 201, answer
    ids = later_run.brokers()
    later_run.ask("POST", f"/api/v1/brokers/{ids['Another']}/default", token)
    later_run.ask("DELETE", f"/api/v1/brokers/{ids['Local Broker']}", token)
    assert list(later_run.brokers()) == ["Another"]
    later_run.stop(signal.SIGKILL)
    # It starts at once, and waits for the processes that are left.
    later_run.start()
    family.wait_for_the_end()
    # The deleted broker is not created again.
    assert list(later_run.brokers()) == ["Another"]


def test_nothing_outlives_a_killed_parent(later_run: Run) -> None:
    # Like make, this parent starts the supervisor and waits for it.
    parent = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    later_run.command = [sys.executable, "-c", parent, *later_run.command]
    later_run.start()
    family = later_run.family()
    later_run.stop(signal.SIGKILL)
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


def test_every_fault_of_the_settings_is_named(first_run: Run) -> None:
    first_run.settings |= {"GATEWAY_PORT": "http", "BROKER_PORT": "0"}
    said = first_run.refusal()
    assert "GATEWAY_PORT: " in said
    assert "BROKER_PORT: " in said
    assert not first_run.home.exists()


def test_a_service_that_cannot_start_gives_its_reason(later_run: Run) -> None:
    later_run.settings["LOG_LEVEL"] = "CHATTY"
    said = later_run.refusal()
    assert "ended with status 1" in said
    assert "LOG_LEVEL" in said
