"""The metrics of each process: all series exist, and count what was done."""

import asyncio
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import httpx2
import pytest
from prometheus_client import REGISTRY as HERE
from prometheus_client.parser import text_string_to_metric_families

from local.postgres import free_port
from tests.integration.gateway.test_gateway_faults import staged
from tests.supervised import PATIENCE_S, POLL_S, SERVICES, Run, until

REGISTER = "/mooring.registry.v1.RegistrationService/RegisterDevices"
CONNECT = "/mooring.registry.v1.RegistrationService/GetConnections"
RESOLVE = "/mooring.broker.v1.ResolutionService/ResolveBrokers"
OF_A_QUEUE = (
    *("mooring_batch_items_count", "mooring_batch_items_sum", "mooring_batch_seconds_count"),
    *("mooring_queue_seconds_count", "mooring_queue_items"),
)
SHED = ("full", "late", "hung", "expired")
BROKER, REGISTRY, GATEWAY = SERVICES

Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    """The port of each service's metrics."""
    return {service: free_port() for service in SERVICES}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[Run]:
    run = Run(tmp_path_factory.mktemp("run") / "home")
    for service, port in ports.items():
        prefix = service.removesuffix("_service").upper()
        run.settings[f"{prefix}_METRICS_PORT"] = str(port)
    run.start()
    try:
        yield run
    finally:
        run.end()


class Metrics:
    """The metrics of a process at one time."""

    def __init__(self, port: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            assert response.status == 200
            text = response.read().decode()
        finally:
            connection.close()
        self.samples: dict[Sample, float] = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The value of one series; `KeyError` if it is not there."""
        return self.samples[name, tuple(sorted(labels.items()))]

    def called(self, method: str, code: str = "OK") -> float:
        """How many calls to a method of another service have ended with `code`."""
        called = method.removeprefix("/").replace("Service/", ".")
        package, _, name = called.rpartition(".")
        sample = (
            "mooring_call_seconds_count",
            (("code", code), ("method", f"{package.rpartition('.')[0]}.{name}")),
        )
        return self.samples.get(sample, 0)

    def calls(self, method: str, code: str = "OK") -> float:
        """How many calls of a method this process has answered with `code`; 0 without a series."""
        sample = ("mooring_rpc_seconds_count", (("code", code), ("method", method)))
        return self.samples.get(sample, 0)


def of_all(ports: dict[str, int]) -> dict[str, Metrics]:
    return {service: Metrics(port) for service, port in ports.items()}


def register(run: Run, uuid: str, key: str) -> int:
    body = {"uuid": uuid, "deviceName": "n", "deviceType": "t", "deviceApiKey": "test-api-key"}
    return run.ask("POST", "/api/v1/device/register", key, body)[0]


def test_every_series_is_there_before_anything_has_happened(
    run: Run, ports: dict[str, int]
) -> None:
    said = of_all(ports)
    for service, queues in (
        (GATEWAY, ("registrations", "connections")),
        (REGISTRY, ("registrations", "connections")),
        (BROKER, ("lookups",)),
    ):
        for queue in queues:
            for name in OF_A_QUEUE:
                assert said[service](name, queue=queue) >= 0
            for why in SHED:
                assert said[service]("mooring_shed_total", queue=queue, why=why) == 0
    assert said[REGISTRY]("mooring_commit_seconds_count") >= 0
    assert said[REGISTRY]("mooring_rpc_seconds_count", method=REGISTER, code="OK") >= 0
    assert said[BROKER]("mooring_rpc_seconds_count", method=RESOLVE, code="OK") >= 0
    for of_one in said.values():
        assert of_one("process_resident_memory_bytes") > 0


def test_one_registration_is_counted_once_in_each_process(run: Run, ports: dict[str, int]) -> None:
    key = run.credentials()["PROVISIONING_KEY"]
    before = of_all(ports)
    assert register(run, "counted", key) == 201

    def moved(service: str, name: str, **labels: str) -> float:
        return Metrics(ports[service])(name, **labels) - before[service](name, **labels)

    def has_all_moved() -> bool:
        """The answer may come before everything has been counted."""
        return {
            moved(service, name, queue="registrations")
            for service in (GATEWAY, REGISTRY)
            for name in OF_A_QUEUE
            if name != "mooring_queue_items"
        } == {1} and moved(REGISTRY, "mooring_commit_seconds_count") == 1

    until(has_all_moved)
    after = of_all(ports)
    assert after[REGISTRY].calls(REGISTER) - before[REGISTRY].calls(REGISTER) == 1
    assert after[GATEWAY].called(REGISTER) - before[GATEWAY].called(REGISTER) == 1
    # This is the first registration of its kind, so the registry calls the broker service.
    assert after[REGISTRY].called(RESOLVE) - before[REGISTRY].called(RESOLVE) == 1
    assert after[BROKER].calls(RESOLVE) - before[BROKER].calls(RESOLVE) == 1
    for service in (GATEWAY, REGISTRY):
        assert after[service]("mooring_queue_items", queue="registrations") == 0
        for name in ("mooring_batch_items_count", "mooring_batch_seconds_count"):
            assert moved(service, name, queue="connections") == 0
        for why in SHED:
            assert moved(service, "mooring_shed_total", queue="registrations", why=why) == 0
    # The time is not zero, and not longer than the test has waited.
    assert 0 < moved(REGISTRY, "mooring_commit_seconds_sum") < PATIENCE_S
    assert 0 < moved(GATEWAY, "mooring_batch_seconds_sum", queue="registrations") < PATIENCE_S


def test_reads_and_refusals_are_counted_as_what_they_are(run: Run, ports: dict[str, int]) -> None:
    key = run.credentials()["PROVISIONING_KEY"]
    assert register(run, "read", key) in (200, 201)
    before = of_all(ports)
    assert run.ask("GET", "/api/v1/device/read/mqtt", "test-api-key")[0] == 200
    assert run.ask("GET", "/api/v1/device/nobody/mqtt", "test-api-key")[0] == 401
    assert register(run, "refused", "not-a-key") == 401
    # The registry refuses a token that is not known, with the status for it.
    assert run.ask("GET", "/api/v1/brokers", "not-a-token")[0] == 401
    authenticate = "/mooring.registry.v1.TokenService/AuthenticateToken"
    until(
        lambda: (
            Metrics(ports[REGISTRY]).calls(authenticate, "UNAUTHENTICATED")
            == before[REGISTRY].calls(authenticate, "UNAUTHENTICATED") + 1
        )
    )
    after = of_all(ports)
    for service in (GATEWAY, REGISTRY):
        name, read = "mooring_batch_items_sum", {"queue": "connections"}
        assert after[service](name, **read) - before[service](name, **read) == 2
    assert after[REGISTRY].calls(CONNECT) - before[REGISTRY].calls(CONNECT) == 2
    assert after[REGISTRY].calls(REGISTER) - before[REGISTRY].calls(REGISTER) == 1
    for queue, reason in (
        ("connections", "DEVICE_UNAUTHENTICATED"),
        ("registrations", "PROVISIONING_KEY_UNKNOWN"),
    ):
        refused = "mooring_devices_refused_total", (("queue", queue), ("reason", reason))
        was, now = (said[REGISTRY].samples.get(refused, 0) for said in (before, after))
        assert now - was == 1
    # Nothing was written for the caller without a valid key.
    commits = "mooring_commit_seconds_count"
    assert after[REGISTRY](commits) == before[REGISTRY](commits)


def test_metrics_name_no_devices_and_no_secrets(run: Run, ports: dict[str, int]) -> None:
    credentials = run.credentials()
    assert register(run, "of-nobodys-concern", credentials["PROVISIONING_KEY"]) in (200, 201)
    for of_one in of_all(ports).values():
        said = json.dumps([*of_one.samples])
        assert "of-nobodys-concern" not in said
        for name in ("PROVISIONING_KEY", "ADMIN_TOKEN"):
            assert credentials[name] not in said


def test_metrics_are_on_loopback_only(run: Run, ports: dict[str, int]) -> None:
    loopback = "0100007F"
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = {
        int(port, 16): address
        for _, local, _, state, *_ in map(str.split, table)
        for address, port in [local.split(":")]
        if state == "0A"
    }
    assert {listening[port] for port in ports.values()} == {loopback}


async def test_the_queue_is_measured_while_calls_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metric also holds while nothing moves, when it is needed most."""
    # With one item a batch, as many calls are in flight as there are lanes.
    monkeypatch.setattr("gateway.device_calls.MAX_BATCH", 1)
    asked: list[asyncio.Task[httpx2.Response]] = []

    def waiting() -> float | None:
        return HERE.get_sample_value("mooring_queue_items", {"queue": "registrations"})

    async with staged(tmp_path) as stage:
        stage.registry.is_open.clear()
        try:
            # The first calls occupy the lanes; the others come when none of them can end.
            for _ in range(2):
                for _ in range(10):
                    asked.append(asyncio.create_task(stage.register(f"d{len(asked)}")))
                async with asyncio.timeout(5):
                    while waiting() != len(asked) - len(stage.registry.batches):
                        await asyncio.sleep(POLL_S)
        finally:
            stage.registry.is_open.set()
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {201}
        assert waiting() == 0
