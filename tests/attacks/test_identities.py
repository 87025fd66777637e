"""A caller with the identity of one service cannot act as another service or as a person."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from mooring.broker.v1 import resolution_pb2, resolution_pb2_grpc
from mooring.registry.v1 import tokens_pb2, tokens_pb2_grpc
from structlog.testing import capture_logs

import broker_service.__main__
import chassis.reloaded
import registry_service.__main__
from chassis.client import ServiceClient
from chassis.errors import REASON, MooringError, Unavailable
from chassis.identities import Identity, hash_of
from chassis.trust import Credentials, Services, callers_of
from tests.integration.chassis.test_guarded_server import POLICIES
from tests.stack import ADMIN, Peer, Stack

SHARED = "s" * 43
RESOLVE = "/mooring.broker.v1.ResolutionService/ResolveBroker"
REGISTER = "/mooring.registry.v1.RegistrationService/RegisterDevices"
MANAGED = "/mooring.broker.v1.ManagementService/ListManagedBrokers"


async def reason_of(peer: ServiceClient, method: str, metadata: Any) -> str:
    """Why a call was refused at the door; "" if it was let in, whatever its result."""
    call: Any = peer.channel.unary_unary(method)
    try:
        await call(b"", timeout=10, metadata=tuple(dict(metadata).items()))
    except grpc.aio.AioRpcError as error:
        reason = dict(error.trailing_metadata() or ()).get(REASON, "")
        return str(reason) if error.code() is grpc.StatusCode.UNAUTHENTICATED else ""
    return ""


def of(stack: Stack, method: str) -> Peer:
    return stack.broker if method.startswith("/mooring.broker") else stack.registry


async def test_the_resolvers_secret_allows_only_resolution(stack: Stack) -> None:
    """It allows no more with other claims, even with a ticket that the registry signed for the
    gateway.
    """
    allowed = set()
    for method in POLICIES:
        for actor in (None, ADMIN):
            metadata = stack.metadata(actor, Identity.RESOLVER)
            claims = {"mooring-actor": "boss", "mooring-role": "admin"}
            if not await reason_of(of(stack, method), method, metadata | claims):
                allowed.add(method)
    assert allowed == {RESOLVE, RESOLVE + "s"}


async def test_no_service_forges_a_role(stack: Stack) -> None:
    for method, policy in POLICIES.items():
        if isinstance(policy, Services):
            continue
        claims = {
            "mooring-actor": "boss",
            "mooring-actor-id": "1",
            "mooring-role": "admin",
            "mooring-fleets": "",
        }
        for caller in (Identity.GATEWAY, Identity.REGISTRY, Identity.ENFORCEMENT):
            found = await reason_of(
                of(stack, method), method, stack.metadata(None, caller) | claims
            )
            expected = "TICKET_INVALID" if caller is Identity.GATEWAY else "UNTRUSTED_SERVICE"
            assert found == expected, (method, caller)


async def test_only_enforcement_gets_passwords(stack: Stack) -> None:
    assert callers_of(POLICIES[MANAGED]) == {Identity.ENFORCEMENT}
    for caller in (Identity.GATEWAY, Identity.REGISTRY, Identity.RESOLVER):
        metadata = stack.metadata(ADMIN, caller)
        assert await reason_of(stack.broker, MANAGED, metadata) == "UNTRUSTED_SERVICE"
    assert await reason_of(stack.broker, MANAGED, stack.metadata(None, Identity.ENFORCEMENT)) == ""


@contextlib.asynccontextmanager
async def sharing(stack: Stack, folder: Path) -> AsyncIterator[tuple[ServiceClient, ServiceClient]]:
    """Both services, which also accept the shared secret of earlier releases."""
    file = folder / "shared"
    file.write_text(SHARED)
    broker = stack.broker_config(service_secret_file=file)
    registry = stack.registry_config(service_secret_file=file)
    async with contextlib.AsyncExitStack() as exits:
        found = []
        for running in (
            broker_service.__main__.running(broker),
            registry_service.__main__.running(registry),
        ):
            port = await exits.enter_async_context(running)
            peer = ServiceClient(f"127.0.0.1:{port}", Credentials(lambda: SHARED))
            exits.push_async_callback(peer.close)
            found.append(peer)
        yield found[0], found[1]


async def test_the_shared_secret_is_not_a_person_and_reads_no_password(
    stack: Stack, tmp_path: Path
) -> None:
    allowed = set()
    with capture_logs() as said:
        async with sharing(stack, tmp_path) as (broker, registry):
            for method in POLICIES:
                peer = broker if method.startswith("/mooring.broker") else registry
                ticket = stack.metadata(ADMIN)["mooring-ticket-bin"]
                shown: dict[str, str | bytes] = {
                    "authorization": f"Bearer {SHARED}",
                    "mooring-ticket-bin": ticket,
                    "mooring-role": "admin",
                    "mooring-actor": "boss",
                }
                if not await reason_of(peer, method, shown):
                    allowed.add(method)
    for method in allowed:
        assert isinstance(POLICIES[method], Services), method
        assert method.split("/")[1].endswith(
            ("ResolutionService", "RegistrationService", "ReportService")
        )
    assert {RESOLVE, REGISTER} <= allowed
    # The deprecation is logged, but not at each call.
    warned = [line for line in said if "uses the secret that services shared" in line["event"]]
    assert len(warned) == 2


async def test_the_shared_secret_is_refused_unless_configured(stack: Stack) -> None:
    shown = {"authorization": f"Bearer {SHARED}"}
    for method in POLICIES:
        assert await reason_of(of(stack, method), method, shown) == "UNTRUSTED_SERVICE", method


async def test_a_replaced_secret_is_refused(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During the replacement both are accepted, and nothing is restarted."""
    monkeypatch.setattr(chassis.reloaded, "LOOK_EVERY_S", 0.0)
    old, new = "o" * 43, "n" * 43
    kept = tmp_path / "hashes.json"

    def write(*secrets: str) -> None:
        kept.write_text(json.dumps({"resolver": [hash_of(secret).hex() for secret in secrets]}))

    async def is_let_in(peer: ServiceClient, secret: str) -> bool:
        return not await reason_of(peer, RESOLVE, {"authorization": f"Bearer {secret}"})

    write(old)
    config = stack.broker_config(caller_hashes_file=kept)
    async with broker_service.__main__.running(config) as port:
        peer = ServiceClient(f"127.0.0.1:{port}", Credentials())
        assert (await is_let_in(peer, old), await is_let_in(peer, new)) == (True, False)
        write(old, new)
        assert (await is_let_in(peer, old), await is_let_in(peer, new)) == (True, True)
        # An invalid file changes nothing.
        kept.write_text('{"resolver": ["zz"]}')
        assert (await is_let_in(peer, old), await is_let_in(peer, new)) == (True, True)
        write(new)
        assert (await is_let_in(peer, old), await is_let_in(peer, new)) == (False, True)
        await peer.close()


class Certified:
    """A broker service behind TLS, and certificates of a CA that it trusts."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack, self.folder, self.ca = stack, folder, trustme.CA()
        self.ca.cert_pem.write_to_path(folder / "ca.pem")

    def files(self, *names: str) -> dict[str, Path]:
        certificate = self.ca.issue_cert(*names)
        stem = self.folder / str(time.monotonic_ns())
        key, cert = stem.with_suffix(".key"), stem.with_suffix(".pem")
        certificate.private_key_pem.write_to_path(key)
        certificate.cert_chain_pems[0].write_to_path(cert)
        return {
            "tls_key_file": key,
            "tls_cert_file": cert,
            "tls_ca_file": self.folder / "ca.pem",
        }

    @contextlib.asynccontextmanager
    async def serving(self, **changes: Any) -> AsyncIterator[int]:
        config = self.stack.broker_config(**self.files("localhost"), **changes)
        async with broker_service.__main__.running(config) as port:
            yield port

    async def reason(self, port: int, method: str, *names: str, **metadata: str | bytes) -> str:
        files = {name: file.read_bytes() for name, file in self.files(*names).items()}
        client = grpc.ssl_channel_credentials(
            files["tls_ca_file"], files["tls_key_file"], files["tls_cert_file"]
        )
        peer = ServiceClient(f"localhost:{port}", Credentials(client=lambda: client))
        try:
            return await reason_of(peer, method, metadata)
        finally:
            await peer.close()


@pytest.fixture
def certified(stack: Stack, tmp_path: Path) -> Certified:
    return Certified(stack, tmp_path)


async def test_another_certificate_of_the_ca_has_no_identity(certified: Certified) -> None:
    """It is a printer's. A secret that is accepted on loopback does not help either."""
    secrets = [certified.stack.metadata(ADMIN, caller) for caller in certified.stack.trust.secrets]
    async with certified.serving() as port:
        for method in POLICIES:
            if not method.startswith("/mooring.broker"):
                continue
            for metadata in ({}, *secrets):
                found = await certified.reason(port, method, "printer.example.com", **metadata)
                assert found == "UNTRUSTED_SERVICE", method
        for names in (
            ("localhost",),
            ("gateway",),
            ("gateway.mooring.internal.example.com",),
            ("xgateway.mooring.internal",),
            # The names of two services at once.
            ("gateway.mooring.internal", "enforcement.mooring.internal"),
        ):
            assert await certified.reason(port, MANAGED, *names) == "UNTRUSTED_SERVICE", names


async def test_a_certificate_has_only_one_identity(certified: Certified) -> None:
    named = {"caller_identities": {"enforcement": ("Control.Example.com",)}}
    async with certified.serving(**named) as port:
        # Configured names replace the default ones.
        assert await certified.reason(port, MANAGED, "control.example.com") == ""
        default = "enforcement.mooring.internal"
        assert await certified.reason(port, MANAGED, default) == "UNTRUSTED_SERVICE"
        assert await certified.reason(port, RESOLVE, "resolver.mooring.internal") == ""
        assert await certified.reason(port, RESOLVE, "control.example.com") == "UNTRUSTED_SERVICE"
        listing = "/mooring.broker.v1.BrokerService/ListBrokers"
        ticket = certified.stack.metadata(ADMIN)
        # A ticket is for the name of one gateway.
        gateway = "gateway.mooring.internal"
        assert await certified.reason(port, listing, gateway, **ticket) == "TICKET_INVALID"


async def test_an_untrusted_gateway_is_not_reported_as_the_persons_fault(stack: Stack) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    resolver = stack.broker.calling_as(Identity.RESOLVER)
    stub = resolution_pb2_grpc.ResolutionServiceStub(resolver.channel)
    with pytest.raises(Unavailable):
        await resolver.call(
            stub.ExplainResolution, resolution_pb2.ExplainResolutionRequest(), deadline=deadline
        )
    with pytest.raises(MooringError):
        await stack.registry.calling_as(Identity.RESOLVER).call(
            tokens_pb2_grpc.TokenServiceStub(stack.registry.channel).CreateToken,
            tokens_pb2.CreateTokenRequest(name="me", role=tokens_pb2.ROLE_ADMIN),
            deadline=deadline,
        )
