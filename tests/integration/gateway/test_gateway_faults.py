"""The gateway, when the registry is down, slow or faulty, or refuses one device of a batch.

The registry is a fake on a real gRPC server, because tests must cause each of these faults.
"""

import asyncio
import contextlib
import itertools
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mooring.broker.v1 import resolution_pb2
from mooring.registry.v1 import registration_pb2 as pb
from mooring.registry.v1 import registration_pb2_grpc, tokens_pb2, tokens_pb2_grpc

from chassis.errors import (
    Conflict,
    InvalidInput,
    LostRace,
    MooringError,
    Overloaded,
    Unauthenticated,
    Unavailable,
    to_item,
)
from chassis.identities import BySecret, Identity, hash_of, read_hashes
from chassis.reloaded import Reloaded
from chassis.server import Health, serving
from chassis.servicers import allows
from chassis.trust import Credentials, Services
from gateway import refusal_counts
from gateway.__main__ import running
from gateway.config import GatewayConfig
from gateway.device_calls import DeviceCalls
from gateway.service_clients import ServiceClients
from tests.stack import PATIENCE_S

GATEWAY_ONLY = Services(Identity.GATEWAY)
BODY = {"uuid": "d", "deviceName": "n", "deviceType": "t", "deviceApiKey": "test-api-key"}
AUTHORIZATION = {"Authorization": "Bearer key"}


@dataclass
class FakeRegistry(registration_pb2_grpc.RegistrationServiceServicer):
    """Registers every device, unless a test says otherwise."""

    # The error for a device, by its uuid.
    refusals: dict[str, MooringError] = field(default_factory=dict)
    # The error that the next call raises.
    failure: Exception | None = None
    # Calls wait until it is set.
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    # The uuids of each batch.
    batches: list[list[str]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    # The broker that answers name; only 1 is among their settings.
    broker_id: int = 1
    # What the gateway says that it refused.
    noted: Counter[str] = field(default_factory=Counter)
    # Whether it fails the next time that it is to count them.
    fails_to_note: bool = False

    @allows(GATEWAY_ONLY)
    async def RegisterDevices(  # noqa: N802
        self, request: pb.RegisterDevicesRequest, context: Any
    ) -> pb.RegisterDevicesResponse:
        await self._begin([one.uuid for one in request.registrations], context)
        return pb.RegisterDevicesResponse(
            outcomes=[self._registered(one.uuid) for one in request.registrations],
            brokers=[resolution_pb2.BrokerSettings(id=1, url="mqtt://h:1883")],
        )

    @allows(GATEWAY_ONLY)
    async def GetConnections(  # noqa: N802
        self, request: pb.GetConnectionsRequest, context: Any
    ) -> pb.GetConnectionsResponse:
        await self._begin([one.uuid for one in request.requests], context)
        return pb.GetConnectionsResponse(
            outcomes=[
                pb.ConnectionOutcome(connection=self._connection(one.uuid))
                for one in request.requests
            ],
            brokers=[resolution_pb2.BrokerSettings(id=1, url="mqtt://h:1883")],
        )

    async def RotateCredentials(  # noqa: N802
        self, request: pb.RotateCredentialsRequest, context: Any
    ) -> pb.RotateCredentialsResponse:
        raise NotImplementedError

    @allows(GATEWAY_ONLY)
    async def NoteRefusals(  # noqa: N802
        self, request: pb.NoteRefusalsRequest, context: Any
    ) -> pb.NoteRefusalsResponse:
        if self.fails_to_note:
            self.fails_to_note = False
            raise Unavailable("down")
        for one in request.refusals:
            self.noted[one.reason] += one.count
        return pb.NoteRefusalsResponse()

    async def _begin(self, uuids: list[str], context: Any) -> None:
        self.batches.append(uuids)
        self.metadata.append(dict(context.invocation_metadata()))
        self.is_asked.set()
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure

    def _registered(self, uuid: str) -> pb.RegistrationOutcome:
        if uuid in self.refusals:
            return pb.RegistrationOutcome(error=to_item(self.refusals[uuid]))
        return pb.RegistrationOutcome(
            device=pb.RegisteredDevice(uuid=uuid, created=True, connection=self._connection(uuid))
        )

    def _connection(self, uuid: str) -> pb.Connection:
        return pb.Connection(username=uuid, broker_id=self.broker_id, generation="g")


@dataclass
class FakeTokens(tokens_pb2_grpc.TokenServiceServicer):
    """Knows no token."""

    failure: Exception = field(
        default_factory=lambda: Unauthenticated("this token is not known", reason="TOKEN_UNKNOWN")
    )

    @allows(GATEWAY_ONLY)
    async def AuthenticateToken(  # noqa: N802
        self, request: tokens_pb2.AuthenticateTokenRequest, context: Any
    ) -> tokens_pb2.AuthenticateTokenResponse:
        raise self.failure

    async def CreateToken(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    ListTokens = GetToken = GetOwnToken = RevokeToken = CreateToken

    @allows(GATEWAY_ONLY)
    async def ListFingerprints(self, request: Any, context: Any) -> Any:  # noqa: N802
        return tokens_pb2.ListFingerprintsResponse()


@dataclass
class Stage:
    """A gateway and its fake services."""

    http: httpx2.AsyncClient
    secret: Path
    registry: FakeRegistry
    tokens: FakeTokens
    registry_health: Health
    broker_health: Health
    gateway: contextlib.AsyncExitStack

    async def register(self, uuid: str = "d", **headers: str) -> httpx2.Response:
        return await self.http.post(
            "/api/v1/device/register", json=BODY | {"uuid": uuid}, headers=AUTHORIZATION | headers
        )


def secret_file(folder: Path, name: str) -> Path:
    """A gateway's secret; its hash is in a file beside it, for the services."""
    file = folder / name
    secret = secrets.token_urlsafe(32)
    file.write_text(secret)
    hashes_beside(file).write_text(json.dumps({"gateway": [hash_of(secret).hex()]}))
    return file


def hashes_beside(secret: Path) -> Path:
    return secret.with_suffix(".json")


@contextlib.asynccontextmanager
async def fake_service(secret: Path, health: Health, *servicers: object) -> AsyncIterator[int]:
    async with serving(
        host="127.0.0.1",
        port=0,
        credentials=Credentials(callers=BySecret(Reloaded(hashes_beside(secret), read_hashes))),
        servicers=servicers,
        health=health,
        drain_s=0,
    ) as port:
        await health.say("", is_serving=True)
        yield port


@contextlib.asynccontextmanager
async def staged(
    folder: Path,
    *,
    gateway_secret: Path | None = None,
    timeout_s: float = 10,
    registry: FakeRegistry | None = None,
    others: Sequence[object] = (),
    **settings: Any,
) -> AsyncIterator[Stage]:
    """`others` are further servicers of the fake registry; `settings` are the gateway's."""
    async with contextlib.AsyncExitStack() as exits:
        secret = secret_file(folder, "secret")
        registry, tokens = registry or FakeRegistry(), FakeTokens()
        registry.is_open.set()

        registry_health, broker_health = Health(), Health()
        registry_port = await exits.enter_async_context(
            fake_service(secret, registry_health, registry, tokens, *others)
        )
        broker_port = await exits.enter_async_context(fake_service(secret, broker_health))
        # Calls that a test still holds back must end before the services stop.
        exits.callback(registry.is_open.set)
        config = GatewayConfig(
            bind_port=0,
            registry_service_address=f"127.0.0.1:{registry_port}",
            broker_service_address=f"127.0.0.1:{broker_port}",
            caller_secret_file=gateway_secret or secret,
            request_timeout_s=timeout_s,
            **settings,
        )
        gateway = await exits.enter_async_context(contextlib.AsyncExitStack())
        url = await gateway.enter_async_context(running(config))
        http = await exits.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=20))
        yield Stage(http, secret, registry, tokens, registry_health, broker_health, gateway)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as everything:
        yield everything


def assert_problem(response: httpx2.Response, status: int, reason: str) -> None:
    assert (response.status_code, response.json()["reason"]) == (status, reason)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert ("retry-after" in response.headers) == (status == 503)
    if status == 503:
        assert int(response.headers["retry-after"]) >= 1


async def test_one_refused_device_does_not_harm_its_batch(stage: Stage) -> None:
    stage.registry.refusals = {
        "bad": InvalidInput("must be shorter", field="device_name"),
        "taken": Conflict("another device has it", reason="DEVICE_EXISTS"),
        "raced": LostRace("somebody was first", retry_after_s=2.0),
        "later": Unavailable("not now", retry_after_s=7),
    }
    stage.registry.is_open.clear()
    uuids = [f"d{number}" for number in range(40)]
    all_uuids = [*uuids, *stage.registry.refusals]
    asked = [asyncio.create_task(stage.register(uuid)) for uuid in all_uuids]
    await stage.registry.is_asked.wait()
    stage.registry.is_open.set()
    *fine, bad, taken, raced, later = await asyncio.gather(*asked)

    assert [answer.json()["uuid"] for answer in fine] == uuids
    assert {answer.status_code for answer in fine} == {201}
    assert_problem(bad, 422, "INVALID_INPUT")
    assert bad.json()["field"] == "deviceName"
    assert_problem(taken, 409, "DEVICE_EXISTS")
    assert_problem(raced, 503, "LOST_RACE")
    assert raced.headers["retry-after"] in ("2", "3")
    assert_problem(later, 503, "UNAVAILABLE")
    assert later.headers["retry-after"] in map(str, range(7, 12))
    # Requests that came during the first call were sent in one batch.
    assert len(stage.registry.batches) < 10
    assert sorted(itertools.chain(*stage.registry.batches)) == sorted(all_uuids)


async def test_concurrent_requests_for_connections_share_a_batch(stage: Stage) -> None:
    stage.registry.is_open.clear()
    uuids = [f"d{number}" for number in range(40)]
    asked = [
        asyncio.create_task(stage.http.get(f"/api/v1/device/{uuid}/mqtt", headers=AUTHORIZATION))
        for uuid in uuids
    ]
    await stage.registry.is_asked.wait()
    stage.registry.is_open.set()
    answers = await asyncio.gather(*asked)
    assert [answer.json()["username"] for answer in answers] == uuids
    assert len(stage.registry.batches) < 10


async def test_a_request_keeps_its_id_on_the_way_to_the_registry(stage: Stage) -> None:
    answer = await stage.register(**{"X-Request-Id": "of.the-caller_1"})
    assert answer.headers["x-request-id"] == "of.the-caller_1"
    assert stage.registry.metadata[-1]["mooring-request-id"] == "of.the-caller_1"


@pytest.mark.parametrize("odd", ["", "a b", "<script>", "x" * 65, "\xe9"])
async def test_an_id_that_is_not_safe_to_log_is_replaced(stage: Stage, odd: str) -> None:
    answer = await stage.http.get("/healthz", headers={b"X-Request-Id": odd.encode("latin-1")})
    assert len(answer.headers["x-request-id"]) == 32


async def test_the_detail_of_a_registrys_error_is_hidden(stage: Stage) -> None:
    stage.registry.failure = RuntimeError("password=hunter2")
    answer = await stage.register()
    assert_problem(answer, 500, "INTERNAL")
    assert "hunter2" not in answer.text


async def test_an_overloaded_registry_is_503(stage: Stage) -> None:
    stage.registry.failure = Overloaded("too many", retry_after_s=2.5)
    answer = await stage.register()
    assert_problem(answer, 503, "OVERLOADED")
    assert answer.headers["retry-after"] in ("3", "4")


async def test_a_device_is_asked_to_retry_after_a_lost_race(stage: Stage) -> None:
    """Devices send no revision, so 412 would be of no use to them."""
    stage.registry.failure = LostRace("somebody was first", retry_after_s=1.0)
    connection = await stage.http.get("/api/v1/device/d/mqtt", headers=AUTHORIZATION)
    for answer in (await stage.register(), connection):
        assert_problem(answer, 503, "LOST_RACE")
        assert answer.headers["retry-after"] in ("1", "2")


async def test_a_lost_race_of_an_administrator_is_412(stage: Stage) -> None:
    stage.tokens.failure = LostRace("somebody was first", retry_after_s=1.0)
    answer = await stage.http.get("/api/v1/brokers", headers=AUTHORIZATION)
    assert_problem(answer, 412, "LOST_RACE")


@pytest.mark.parametrize(
    ("size", "status", "reason"),
    [(20_000, 401, "UNAUTHENTICATED"), (1_500_000, 431, "HEAD_TOO_LARGE")],
)
async def test_a_huge_secret_is_never_in_a_batch(
    stage: Stage, size: int, status: int, reason: str
) -> None:
    huge = {"Authorization": f"Bearer {'x' * size}"}
    assert_problem(await stage.register(**huge), status, reason)
    asked = await stage.http.get("/api/v1/device/d/mqtt", headers=huge)
    assert_problem(asked, status, reason)
    assert stage.registry.batches == []


async def test_the_queue_is_bounded_in_bytes(stage: Stage) -> None:
    config = GatewayConfig(caller_secret_file=stage.secret)
    services = ServiceClients(config)
    calls = DeviceCalls(services, timeout_s=1)
    huge = "x" * (64 * 1024 * 1024 + 1)
    try:
        with pytest.raises(Overloaded):
            calls.connection("d", huge)
        with pytest.raises(Overloaded):
            calls.register(pb.Registration(uuid="d", provisioning_key=huge), size=len(huge))
    finally:
        await calls.close()
        await services.close()


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_counts, "SEND_EVERY_S", 0.5)


@pytest.mark.usefixtures("_often")
async def test_refusals_that_the_registry_does_not_see_are_sent_to_it(tmp_path: Path) -> None:
    """Each is counted once: the registry counts its own refusals. What cannot be sent is kept."""
    async with staged(tmp_path) as stage:
        await refuse_each(stage)


async def refuse_each(stage: Stage) -> None:
    stage.registry.fails_to_note = True
    stage.registry.refusals["taken"] = Conflict("taken", reason="DEVICE_TAKEN")
    assert_problem(await stage.register("taken"), 409, "DEVICE_TAKEN")
    assert (await stage.register("fine")).status_code == 201
    stage.registry.failure = Unavailable("down")
    assert_problem(await stage.register("d"), 503, "UNAVAILABLE")
    stage.registry.failure = None
    assert_problem(await stage.http.delete("/api/v1/device/d/mqtt"), 405, "METHOD_NOT_ALLOWED")
    assert_problem(await stage.http.get("/api/v1/device/d/mqtt"), 401, "UNAUTHENTICATED")
    async with asyncio.timeout(PATIENCE_S):
        while stage.registry.fails_to_note:
            await asyncio.sleep(0.02)
    await stage.gateway.aclose()
    assert stage.registry.noted == {
        "UNAVAILABLE": 1,
        "METHOD_NOT_ALLOWED": 1,
        "UNAUTHENTICATED": 1,
    }


async def test_an_invalid_answer_of_the_registry_is_500_without_details(stage: Stage) -> None:
    stage.registry.broker_id = 99
    assert_problem(await stage.register(), 500, "INTERNAL")


async def test_the_gateway_gives_a_slow_registry_up_in_time(tmp_path: Path) -> None:
    async with staged(tmp_path, timeout_s=0.5) as stage:
        stage.registry.is_open.clear()
        async with asyncio.timeout(5):
            assert_problem(await stage.register(), 503, "DEADLINE_EXCEEDED")
            # The next request does not wait behind the first.
            stage.registry.is_open.set()
            assert (await stage.register()).status_code == 201


async def test_a_device_that_hangs_up_does_not_harm_its_batch(stage: Stage) -> None:
    stage.registry.is_open.clear()
    leaving, staying = (asyncio.create_task(stage.register(uuid)) for uuid in ("a", "b"))
    await stage.registry.is_asked.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    stage.registry.is_open.set()
    assert (await staying).status_code == 201


async def test_a_registry_that_does_not_trust_the_gateway_is_not_the_devices_fault(
    tmp_path: Path,
) -> None:
    other = secret_file(tmp_path, "other")
    async with staged(tmp_path, gateway_secret=other) as stage:
        answer = await stage.register()
        assert answer.status_code == 503
        assert "retry-after" in answer.headers


async def test_an_unknown_token_is_unauthenticated(stage: Stage) -> None:
    answer = await stage.http.get("/api/v1/brokers", headers=AUTHORIZATION)
    assert_problem(answer, 401, "TOKEN_UNKNOWN")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_without_a_registry_requests_are_503_and_the_process_lives(tmp_path: Path) -> None:
    config = GatewayConfig(
        bind_port=0,
        registry_service_address="127.0.0.1:1",
        broker_service_address="127.0.0.1:1",
        caller_secret_file=secret_file(tmp_path, "secret"),
    )
    async with running(config) as url, httpx2.AsyncClient(base_url=url) as http:
        for answer in (
            await http.post("/api/v1/device/register", json=BODY, headers=AUTHORIZATION),
            await http.get("/api/v1/device/d/mqtt", headers=AUTHORIZATION),
            await http.get("/api/v1/brokers", headers=AUTHORIZATION),
        ):
            assert_problem(answer, 503, "UNAVAILABLE")
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        assert int(ready.headers["retry-after"]) >= 1


async def test_readiness_names_problems_and_lasts_while_devices_can_register(stage: Stage) -> None:
    async def readiness() -> tuple[int, str]:
        answer = await stage.http.get("/readyz")
        return answer.status_code, answer.json()["status"]

    assert await readiness() == (200, "ready")
    await stage.registry_health.say("broker_service", is_serving=False)
    assert await readiness() == (200, "degraded")
    await stage.registry_health.say("broker_service", is_serving=True)
    await stage.broker_health.say("database", is_serving=False)
    assert await readiness() == (200, "degraded")
    await stage.broker_health.say("", is_serving=False)
    assert await readiness() == (200, "degraded")
    await stage.registry_health.say("", is_serving=False)
    assert await readiness() == (503, "unavailable")


async def test_a_stop_refuses_new_requests_and_lets_requests_under_way_finish(stage: Stage) -> None:
    stage.registry.is_open.clear()
    asked = asyncio.create_task(stage.register())
    await stage.registry.is_asked.wait()
    stopping = asyncio.create_task(stage.gateway.aclose())
    async with httpx2.AsyncClient(base_url=stage.http.base_url) as late:
        with contextlib.suppress(httpx2.TransportError):
            while await late.get("/healthz", headers={"Connection": "close"}):
                assert not asked.done()
    assert not asked.done()
    stage.registry.is_open.set()
    assert (await asked).status_code == 201
    await stopping


async def test_a_taken_port_is_reported_in_one_line(stage: Stage, tmp_path: Path) -> None:
    port = stage.http.base_url.port or 0
    config = GatewayConfig(bind_port=port, caller_secret_file=secret_file(tmp_path, "other"))
    with pytest.raises(SystemExit, match=f"127.0.0.1:{port} cannot be bound"):
        async with running(config):
            pass
