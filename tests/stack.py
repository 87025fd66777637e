"""The services as tests run them: in this process, each on a free port."""

import asyncio
import base64
import contextlib
import copy
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psycopg
from mooring.broker.v1 import (
    brokers_pb2,
    brokers_pb2_grpc,
    certificates_pb2_grpc,
    resolution_pb2_grpc,
    rotations_pb2_grpc,
)
from mooring.registry.v1 import (
    audit_pb2_grpc,
    devices_pb2_grpc,
    expected_devices_pb2_grpc,
    fleets_pb2,
    fleets_pb2_grpc,
    provisioning_keys_pb2,
    provisioning_keys_pb2_grpc,
    registration_pb2_grpc,
    tokens_pb2,
    tokens_pb2_grpc,
)

import broker_service.__main__
import gateway.__main__
import registry_service.__main__
from broker_service.config import BrokerServiceConfig
from chassis.address_policy import UNRESTRICTED
from chassis.client import ServiceClient
from chassis.identities import PROVABLE, Identity, read_secret
from chassis.tickets import SigningKeys
from chassis.trust import Access, Actor, Credentials
from gateway.config import GatewayConfig
from local.home import Home, Trust
from local.postgres import Postgres
from registry_service.config import RegistryServiceConfig
from tests.served import Served, client_of

ROLES = (
    "mooring_broker",
    "mooring_registry",
    "mooring_operator",
    "mqtt_reader",
    "mooring_sealer",
    "mooring_access",
)
ADMIN = Actor("tests", Access.ADMIN)
# The callers of methods that the gateway does not call.
CALLERS = {
    ("ResolutionServiceStub", "ResolveBroker"): Identity.RESOLVER,
    ("ResolutionServiceStub", "ResolveBrokers"): Identity.REGISTRY,
    ("ManagementServiceStub", "ListManagedBrokers"): Identity.ENFORCEMENT,
}
PATIENCE_S = 20.0
POLL_S = 0.005

Message = TypeVar("Message")


@dataclass(frozen=True)
class Seed:
    """What the services made in a database at the beginning, and the folder with their keys."""

    home: Path
    default_broker_id: int
    provisioning_key: str
    admin_token: str


@dataclass(frozen=True)
class Database:
    """A database for one test; with a `seed`, it is a copy of one that has it."""

    server: Postgres
    name: str
    password: str
    seed: Seed | None = None

    def url(self, role: str) -> str:
        """The URL with which `role` connects."""
        return self.server.url(role, self.password, self.name)

    def execute(self, statement: str, *values: Any, role: str = "mooring") -> list[Any]:
        """Commits one statement and returns its rows."""
        with psycopg.connect(self.url(role), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []


def ticket_of(signing: SigningKeys, actor: Actor, **changes: Any) -> bytes:
    """The ticket that the registry gives the gateway for a person, with `changes`."""
    said = {
        "audience": Identity.GATEWAY,
        "actor": actor.name,
        "actor_id": actor.id,
        "role": actor.role.name.lower(),
        "fleets": None if actor.fleets is None else tuple(sorted(actor.fleets)),
    }
    return signing.signed(**{**said, **changes})


class Peer(ServiceClient):
    """A client of a service; each method is called by an identity that may call it."""

    def __init__(
        self,
        address: str,
        credentials: Credentials,
        signing: SigningKeys | None = None,
        others: Mapping[Identity, Credentials] | None = None,
    ) -> None:
        """`signing` makes the tickets; `others` are the callers apart from the gateway."""
        super().__init__(address, credentials)
        self._signing = signing
        self._others = others or {}

    def calling_as(self, identity: Identity) -> "Peer":
        """The same connection with the secret of another caller."""
        other = copy.copy(self)
        other._credentials = self._others[identity]
        return other

    async def ask(
        self, stub: type[Any], method: str, request: Any, *, actor: Actor | None = ADMIN
    ) -> Any:
        """Calls `method` of `stub`. Raises the `MooringError` that the service raised."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        bound = getattr(stub(self.channel), method)
        identity = CALLERS.get((stub.__name__, method), Identity.GATEWAY)
        speaker = self.calling_as(identity) if identity in self._others else self
        ticket = None
        if actor is not None and self._signing is not None and identity is Identity.GATEWAY:
            ticket = ticket_of(self._signing, actor)
        return await speaker.call(bound, request, deadline=deadline, ticket=ticket)

    async def resolution(self, method: str, request: Any) -> Any:
        return await self.ask(resolution_pb2_grpc.ResolutionServiceStub, method, request)

    async def brokers(self, method: str, request: Any) -> Any:
        return await self.ask(brokers_pb2_grpc.BrokerServiceStub, method, request)

    async def certificates(self, method: str, request: Any) -> Any:
        return await self.ask(certificates_pb2_grpc.CertificateServiceStub, method, request)

    async def rotations(self, method: str, request: Any) -> Any:
        return await self.ask(rotations_pb2_grpc.RotationServiceStub, method, request)

    async def registration(self, method: str, request: Any) -> Any:
        return await self.ask(registration_pb2_grpc.RegistrationServiceStub, method, request)

    async def devices(self, method: str, request: Any) -> Any:
        return await self.ask(devices_pb2_grpc.DeviceServiceStub, method, request)

    async def fleets(self, method: str, request: Any) -> Any:
        return await self.ask(fleets_pb2_grpc.FleetServiceStub, method, request)

    async def keys(self, method: str, request: Any) -> Any:
        return await self.ask(
            provisioning_keys_pb2_grpc.ProvisioningKeyServiceStub, method, request
        )

    async def expected(self, method: str, request: Any) -> Any:
        return await self.ask(expected_devices_pb2_grpc.ExpectedDeviceServiceStub, method, request)

    async def tokens(self, method: str, request: Any) -> Any:
        return await self.ask(tokens_pb2_grpc.TokenServiceStub, method, request)

    async def audit(self, method: str, request: Any) -> Any:
        return await self.ask(audit_pb2_grpc.AuditServiceStub, method, request)


@dataclass
class Stack(Served):
    """The running services, and the objects that were made in them first."""

    database: Database
    home: Path
    trust: Trust
    keys_file: Path
    encryption_keys_file: Path
    exit: contextlib.AsyncExitStack
    broker_port: int = 0
    registry_port: int = 0
    gateway_url: str = ""
    admin_token: str = ""
    provisioning_key: str = ""
    default_broker_id: int = 0
    broker: Peer = field(init=False)
    registry: Peer = field(init=False)
    http: httpx2.AsyncClient = field(init=False)
    _broker_exit: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    def broker_config(self, **changes: Any) -> BrokerServiceConfig:
        """The configuration of a broker service on a free port."""
        return BrokerServiceConfig(
            **{
                "bind_port": 0,
                "database_url": self.database.url("mooring_broker"),
                "encryption_keys_file": self.encryption_keys_file,
                "caller_hashes_file": self.trust.hashes,
                "ticket_public_keys_file": self.trust.ticket_public_keys,
                # As `make run` has it: the brokers of tests are on this machine.
                "broker_address_policy": UNRESTRICTED,
                "drain_s": 0,
                **changes,
            }
        )

    def registry_config(self, **changes: Any) -> RegistryServiceConfig:
        """The configuration of a registry service on a free port."""
        return RegistryServiceConfig(
            **{
                "bind_port": 0,
                "database_url": self.database.url("mooring_registry"),
                "broker_service_address": f"127.0.0.1:{self.broker_port}",
                "server_keys_file": self.keys_file,
                "caller_secret_file": self.trust.secrets[Identity.REGISTRY],
                "caller_hashes_file": self.trust.hashes,
                "ticket_keys_file": self.trust.ticket_keys,
                "drain_s": 0,
                **changes,
            }
        )

    def gateway_config(self, **changes: Any) -> GatewayConfig:
        """The configuration of a gateway on a free port."""
        return GatewayConfig(
            **{
                "bind_port": 0,
                "registry_service_address": f"127.0.0.1:{self.registry_port}",
                "broker_service_address": f"127.0.0.1:{self.broker_port}",
                "caller_secret_file": self.trust.secrets[Identity.GATEWAY],
                "drain_s": 0,
                **changes,
            }
        )

    @property
    def credentials(self) -> Credentials:
        """The secret of the gateway."""
        return self.credentials_of(Identity.GATEWAY)

    def credentials_of(self, identity: Identity) -> Credentials:
        """The secret of one of the services."""
        secret = read_secret(self.trust.secrets[identity])
        return Credentials(lambda: secret)

    @property
    def signing(self) -> SigningKeys:
        """The ring with which the registry signs tickets."""
        return SigningKeys.read(self.trust.ticket_keys)

    def metadata(
        self, actor: Actor | None = None, caller: Identity = Identity.GATEWAY
    ) -> dict[str, str | bytes]:
        """The metadata of a call by `caller`, for `actor`."""
        ticket = None if actor is None else ticket_of(self.signing, actor)
        return dict(self.credentials_of(caller).metadata(ticket, "id"))

    def peer_at(self, target: str) -> Peer:
        """A client of the services at a gRPC target; the caller closes it."""
        others = {identity: self.credentials_of(identity) for identity in PROVABLE}
        return Peer(target, self.credentials, self.signing, others)

    async def peer(self, port: int) -> Peer:
        """A client of the service on `port`."""
        peer = self.peer_at(f"127.0.0.1:{port}")
        self.exit.push_async_callback(peer.close)
        return peer

    async def start_broker_service(self, **changes: Any) -> None:
        """Starts it, on its previous port if there was one."""
        config = self.broker_config(bind_port=self.broker_port, **changes)
        self.broker_port = await self._broker_exit.enter_async_context(
            broker_service.__main__.running(config)
        )

    async def stop_broker_service(self) -> None:
        """Stops it; its port stays free for the next start, because no other process knows it."""
        await self._broker_exit.aclose()

    async def another_registry(self, **changes: Any) -> Peer:
        """Runs one more registry service on the same database."""
        port = await self.exit.enter_async_context(
            registry_service.__main__.running(self.registry_config(**changes))
        )
        return await self.peer(port)

    async def settle(self) -> None:
        """Returns when the registry has made its first checks, and has logged their results."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self.registry.is_serving("broker_service"):
                await asyncio.sleep(POLL_S)

    async def create_broker(self, name: str, **fields: Any) -> int:
        """Creates a broker; returns its id."""
        given = brokers_pb2.BrokerFields(**{"name": name, "host": "h", "port": 1883, **fields})
        request = brokers_pb2.CreateBrokerRequest(fields=given)
        return int((await self.broker.brokers("CreateBroker", request)).broker.id)

    async def create_key(self, **fields: Any) -> str:
        """Creates a provisioning key and returns it."""
        request = provisioning_keys_pb2.CreateProvisioningKeyRequest(
            **{"fleet_id": "demo", **fields}
        )
        return str((await self.registry.keys("CreateProvisioningKey", request)).key)

    async def create_fleet(self, fleet_id: str, **fields: Any) -> None:
        """Creates a fleet; its fields are those of `FleetFields`."""
        await self.registry.fleets(
            "CreateFleet",
            fleets_pb2.CreateFleetRequest(id=fleet_id, fields=fleets_pb2.FleetFields(**fields)),
        )


def prepared(database: Database, home: Path, exits: contextlib.AsyncExitStack) -> Stack:
    """A stack with all files, whose services are not started yet."""
    keys_file = home / "server-keys.json"
    encryption_keys_file = home / "encryption-keys.json"
    ring = {"active": 1, "keys": [{"id": 1, "secret": base64.b64encode(bytes(32)).decode()}]}
    for file in (keys_file, encryption_keys_file):
        file.write_text(json.dumps(ring))
    return Stack(database, home, Home(home).trust(), keys_file, encryption_keys_file, exits)


async def seed(stack: Stack) -> None:
    """Makes a default broker, a fleet `demo` and a key for it."""
    stack.default_broker_id = await stack.create_broker("Local Broker", host="localhost", port=5883)
    await stack.broker.brokers(
        "SetDefaultBroker", brokers_pb2.SetDefaultBrokerRequest(id=stack.default_broker_id)
    )
    await stack.create_fleet("demo")
    stack.provisioning_key = await stack.create_key()


@contextlib.asynccontextmanager
async def _started_services(database: Database, home: Path) -> AsyncIterator[Stack]:
    async with contextlib.AsyncExitStack() as exits:
        stack = prepared(database, home, exits)
        exits.push_async_callback(stack.stop_broker_service)
        await stack.start_broker_service()
        stack.registry_port = await exits.enter_async_context(
            registry_service.__main__.running(stack.registry_config())
        )
        stack.broker = await stack.peer(stack.broker_port)
        stack.registry = await stack.peer(stack.registry_port)
        yield stack


async def seeded(database: Database, home: Path) -> Seed:
    """Makes a fleet `demo`, a key for it, a token and a default broker, and the keys in `home`."""
    async with _started_services(database, home) as stack:
        await seed(stack)
        token = tokens_pb2.CreateTokenRequest(name="tests", role=tokens_pb2.ROLE_ADMIN)
        admin_token = (await stack.registry.tokens("CreateToken", token)).secret
    return Seed(home, stack.default_broker_id, stack.provisioning_key, admin_token)


@contextlib.asynccontextmanager
async def started(database: Database, home: Path) -> AsyncIterator[Stack]:
    """Runs the services with a fleet `demo`, a key for it, a token and a default broker."""
    made = database.seed or await seeded(database, home)
    if made.home != home:
        shutil.copytree(made.home, home, dirs_exist_ok=True)
    async with _started_services(database, home) as stack:
        stack.default_broker_id = made.default_broker_id
        stack.provisioning_key = made.provisioning_key
        stack.admin_token = made.admin_token
        stack.gateway_url = await stack.exit.enter_async_context(
            gateway.__main__.running(stack.gateway_config())
        )
        stack.http = await stack.exit.enter_async_context(client_of(stack.gateway_url))
        await stack.settle()
        yield stack
