"""The cost of management calls with a million devices, and correspondingly many other objects.

Reads are sequential gRPC calls of a client, about other objects each time, so a figure includes the
call and is more than the service takes.
"""

import base64
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from random import Random
from statistics import median
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from mooring.broker.v1 import brokers_pb2, device_counts_pb2, history_pb2, resolution_pb2
from mooring.registry.v1 import (
    audit_pb2,
    devices_pb2,
    expected_devices_pb2,
    fleets_pb2,
    jobs_pb2,
    provisioning_keys_pb2,
    tokens_pb2,
)

from bench import crowd, memory
from bench.errors import CannotMeasure
from bench.measures import Figure, Findings, Goal, ms
from bench.programs import HERE
from bench.rows import brokers, keys
from bench.stage import Database, Services, Stage
from chassis.identities import Identity, read_secret
from chassis.tickets import SigningKeys
from chassis.trust import Credentials
from registry_service.administration.devices.orders import Position, cursor_of

CALLS = 200
WARM_UP = 20
KEYS = 1_000
TOKENS = 1_000
EXPECTED = 100_000
AUDIT_LINES = 1_000_000
# Revisions of the first broker.
REVISIONS = 300
# The time of the audit log's first line, as in sql/managed.sql.
NEW_YEAR = 1_767_225_600
REQUESTS = 300
CHANGES = 20
PATIENCE_S = 10.0
WHAT = f"{brokers.BROKERS:,} brokers, {brokers.FLEETS:,} fleets, {crowd.DEVICES:,} devices"


@dataclass(frozen=True)
class Read:
    """A method, and a function that makes its requests."""

    what: str
    method: str
    question: Callable[[Random], Any]
    goal: Goal


def one(what: str, method: str, question: Callable[[Random], Any]) -> Read:
    """A read of one object."""
    return Read(what, method, question, Goal(5, 5, at_most=True))


def page(what: str, method: str, question: Callable[[Random], Any]) -> Read:
    """A read of a page of the default size."""
    return Read(what, method, question, Goal(20, 20, at_most=True))


def _broker(random: Random) -> int:
    return random.randint(1, brokers.BROKERS)


def _device(random: Random) -> str:
    return crowd.uuid(random.randint(1, crowd.DEVICES))


def _fleet(random: Random) -> str:
    return f"fleet-{random.randint(1, brokers.FLEETS)}"


def _id(random: Random, count: int) -> str:
    """The id of one of so many keys or tokens, as sql/managed.sql makes them."""
    return crowd.uuid(random.randint(1, count))


def _expected(random: Random) -> str:
    return f"expected-{random.randint(1, EXPECTED)}"


def _cursor(key: object) -> str:
    """Encodes as `chassis.pages` does."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _device_cursor(random: Random, conditions: dict[str, Any]) -> str:
    return cursor_of(conditions, Position(0, [random.randint(1, crowd.DEVICES // 2)]))


# Each line is one read.
BROKER, REGISTRY = "/mooring.broker.v1.", "/mooring.registry.v1."
READS = (
    one(
        "a broker",
        f"{BROKER}BrokerService/GetBroker",
        lambda random: brokers_pb2.GetBrokerRequest(id=_broker(random)),
    ),
    one(
        "a device",
        f"{REGISTRY}DeviceService/GetDevice",
        lambda random: devices_pb2.GetDeviceRequest(uuid=_device(random)),
    ),
    one(
        "why a device has its broker",
        f"{BROKER}ResolutionService/ExplainResolution",
        lambda random: resolution_pb2.ExplainResolutionRequest(device_uuid=_device(random)),
    ),
    one(
        "a provisioning key",
        f"{REGISTRY}ProvisioningKeyService/GetProvisioningKey",
        lambda random: provisioning_keys_pb2.GetProvisioningKeyRequest(id=_id(random, KEYS)),
    ),
    one(
        "an expected device",
        f"{REGISTRY}ExpectedDeviceService/GetExpectedDevice",
        lambda random: expected_devices_pb2.GetExpectedDeviceRequest(uuid=_expected(random)),
    ),
    one(
        "an API token",
        f"{REGISTRY}TokenService/GetToken",
        lambda random: tokens_pb2.GetTokenRequest(id=_id(random, TOKENS)),
    ),
    page(
        "how many devices use a broker",
        f"{BROKER}DeviceCountService/GetDeviceCounts",
        lambda random: device_counts_pb2.GetDeviceCountsRequest(broker_id=_broker(random)),
    ),
    page(
        "how many devices use the default",
        f"{BROKER}DeviceCountService/GetDeviceCounts",
        lambda _: device_counts_pb2.GetDeviceCountsRequest(broker_id=1),
    ),
    page(
        "a page of how many devices use each broker",
        f"{BROKER}DeviceCountService/ListDeviceCounts",
        lambda random: device_counts_pb2.ListDeviceCountsRequest(cursor=_cursor(_broker(random))),
    ),
    page(
        "a page of brokers",
        f"{BROKER}BrokerService/ListBrokers",
        lambda random: brokers_pb2.ListBrokersRequest(cursor=_cursor(_broker(random))),
    ),
    page(
        "a page of devices",
        f"{REGISTRY}DeviceService/ListDevices",
        lambda random: devices_pb2.ListDevicesRequest(cursor=_device_cursor(random, {})),
    ),
    page(
        "a page of a large fleet's devices",
        f"{REGISTRY}DeviceService/ListDevices",
        lambda random: devices_pb2.ListDevicesRequest(
            fleet_id="demo", cursor=_device_cursor(random, {"fleet_id": "demo"})
        ),
    ),
    page(
        "a page of a search for one letter",
        f"{REGISTRY}DeviceService/ListDevices",
        lambda random: devices_pb2.ListDevicesRequest(
            filter=jobs_pb2.DeviceFilter(search=random.choice("0123456789abcdef"))
        ),
    ),
    page(
        "a page of devices that are not of the largest fleet",
        f"{REGISTRY}DeviceService/ListDevices",
        lambda _: devices_pb2.ListDevicesRequest(
            filter=jobs_pb2.DeviceFilter(not_fleet_id=["demo"])
        ),
    ),
    page(
        "a page of fleets",
        f"{REGISTRY}FleetService/ListFleets",
        lambda random: fleets_pb2.ListFleetsRequest(cursor=_cursor(_fleet(random))),
    ),
    page(
        "a page of provisioning keys",
        f"{REGISTRY}ProvisioningKeyService/ListProvisioningKeys",
        lambda random: provisioning_keys_pb2.ListProvisioningKeysRequest(
            cursor=_cursor(str(UUID(int=random.getrandbits(128))))
        ),
    ),
    page(
        "a page of expected devices",
        f"{REGISTRY}ExpectedDeviceService/ListExpectedDevices",
        lambda random: expected_devices_pb2.ListExpectedDevicesRequest(
            cursor=_cursor(_expected(random))
        ),
    ),
    page(
        "a page of API tokens",
        f"{REGISTRY}TokenService/ListTokens",
        lambda random: tokens_pb2.ListTokensRequest(
            cursor=_cursor(str(UUID(int=random.getrandbits(127))))
        ),
    ),
    page(
        f"a page of the audit log, {AUDIT_LINES:,} lines",
        f"{REGISTRY}AuditService/ListAuditLog",
        lambda random: audit_pb2.ListAuditLogRequest(
            until=Timestamp(seconds=NEW_YEAR + random.randint(1_000, AUDIT_LINES))
        ),
    ),
    page(
        f"a page of a broker's history, {REVISIONS:,} revisions",
        f"{BROKER}BrokerHistoryService/ListBrokerRevisions",
        lambda random: history_pb2.ListBrokerRevisionsRequest(
            broker_id=1, cursor=_cursor(random.randint(150, REVISIONS))
        ),
    ),
)


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    with stage.database("management", like=crowd.database(stage)) as database:
        fill(database)
        with stage.services(database) as services:
            reads = [_timed(services, read) for read in READS]
            for _ in range(CHANGES):
                # Each change makes the broker service read all brokers again.
                database.execute("UPDATE mqtt_broker_config SET name = name")
            resident_mb = memory.peak_mb(services.pids["broker_service"])
            statements = _statements_per_request(stage, services)
    return Findings(
        (
            *reads,
            Figure(
                f"peak memory of broker_service, {WHAT}",
                f"{resident_mb:.0f} MB",
                value=resident_mb,
                unit="MB",
                goal=Goal(200, 200, at_most=True),
            ),
            Figure(
                "statements that authenticate a request by its token",
                f"{statements:.2f} a request",
                value=statements,
                unit="a request",
                # A statement that records the last use of a token may fall into the measurement.
                goal=Goal(0.1, 0.1, at_most=True),
            ),
        )
    )


def fill(database: Database) -> None:
    """Adds all other managed objects to the million devices, and assigns some devices to each."""
    brokers.fill(database)
    keys.made(database)
    database.execute((HERE / "sql" / "spread.sql").read_text(), brokers.FLEETS, brokers.BROKERS)
    managed = (HERE / "sql" / "managed.sql").read_text()
    database.execute(managed, KEYS, TOKENS, EXPECTED, AUDIT_LINES)
    for revision in range(REVISIONS):
        database.execute("UPDATE mqtt_broker_config SET keep_alive = %s WHERE id = 1", revision)
    database.execute(
        "VACUUM (ANALYZE) devices, provisioning_keys, api_tokens, expected_devices, audit_log"
    )
    database.checkpoint()


def _timed(services: Services, read: Read) -> Figure:
    """The median of sequential calls."""
    random = Random(read.what)  # noqa: S311 - which ones, not secrets
    address = (
        services.broker_address if read.method.startswith(BROKER) else services.registry_address
    )
    signing = SigningKeys.read(services.trust.ticket_keys)
    secret = read_secret(services.trust.secrets[Identity.GATEWAY])
    credentials = Credentials(lambda: secret)
    taken: list[float] = []
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(read.method)
        try:
            for _ in range(WARM_UP + CALLS):
                # As the registry gives one for each request.
                ticket = signing.signed(
                    audience=Identity.GATEWAY,
                    actor="bench",
                    actor_id="",
                    role="admin",
                    fleets=None,
                )
                metadata = credentials.metadata(ticket, "bench")
                question = read.question(random).SerializeToString()
                begun = time.perf_counter()
                answer = call(question, timeout=PATIENCE_S, metadata=metadata)
                taken.append(time.perf_counter() - begun)
                if not answer:
                    raise CannotMeasure(f"{read.method} answers nothing")
        except grpc.RpcError as error:
            raise CannotMeasure(f"{read.method} fails: {error}") from None
    value = median(taken[WARM_UP:])
    return Figure(
        f"p50 of {read.what}, {crowd.DEVICES:,} devices",
        ms(value),
        value=value * 1e3,
        unit="ms",
        goal=read.goal,
    )


def _statements_per_request(stage: Stage, services: Services) -> float:
    """The number of statements of the registry that authenticate one request.

    The broker service answers these requests from memory, so the registry does nothing else for
    them. The statements are counted in PostgreSQL's log, because its statistics do not count them.
    As many as it runs in an equal time without requests are subtracted: its loops run some.
    """
    with stage.statements_of("mooring_registry", services.database) as executed:
        begun = time.perf_counter()
        _ask_over_http(services, REQUESTS)
        taken_s = time.perf_counter() - begun
    with stage.statements_of("mooring_registry", services.database) as executed_anyway:
        time.sleep(taken_s)
    return max(0, len(executed) - len(executed_anyway)) / REQUESTS


def _ask_over_http(services: Services, requests: int) -> None:
    headers = {
        "Authorization": f"Bearer {services.admin_token}",
        "Content-Type": "application/json",
    }
    with closing(HTTPConnection("127.0.0.1", services.gateway_port, timeout=PATIENCE_S)) as gateway:
        for _ in range(requests):
            gateway.request("POST", "/api/v1/resolution/explain", "{}", headers)
            response = gateway.getresponse()
            response.read()
            if response.status != 200:
                raise CannotMeasure(f"POST /resolution/explain is answered {response.status}")
