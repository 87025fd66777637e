"""Guarded servers: which callers are accepted, malformed messages, health, TLS."""

import asyncio
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mooring.broker.v1 import (
    brokers_pb2,
    brokers_pb2_grpc,
    resolution_pb2,
    resolution_pb2_grpc,
)
from mooring.registry.v1 import tokens_pb2, tokens_pb2_grpc

import broker_service.__main__
import registry_service.__main__
from chassis.client import ServiceClient
from chassis.errors import Forbidden, Unavailable
from chassis.identities import Identity
from chassis.server import Health, serving
from chassis.servicers import allows, policies_of
from chassis.trust import Access, Actor, Credentials, Services, callers_of
from tests import REPOSITORY
from tests.stack import Peer, Stack, started

GENERATED = REPOSITORY / "protos" / "gen"


def generated() -> Iterator[ServiceDescriptor]:
    """Every service of the protos."""
    for file in sorted(GENERATED.rglob("*_pb2.py")):
        name = ".".join(file.relative_to(GENERATED).with_suffix("").parts)
        yield from import_module(name).DESCRIPTOR.services_by_name.values()


def servicers_of(service: ServiceDescriptor) -> list[type]:
    """Mooring's servicers of a service, without the fakes of tests."""
    module = import_module(service.file.name.removesuffix(".proto").replace("/", ".") + "_pb2_grpc")
    below = getattr(module, f"{service.name}Servicer").__subclasses__()
    return [one for one in below if not one.__module__.startswith("tests.")]


POLICIES = {
    method: policy
    for service in generated()
    for servicer in servicers_of(service)
    for method, policy in policies_of(servicer).items()
}


def calling_as(method: str) -> Identity:
    """A caller that may call the method, and has a secret."""
    return min(callers_of(POLICIES[method]) - {Identity.SHARED})


async def reflected(peer: ServiceClient) -> list[str]:
    """The full names of the methods that a service reports by reflection."""
    ask: Any = peer.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    question: Any = reflection_pb2.ServerReflectionRequest
    answers = ask(iter([question(list_services="")]))
    names = [s.name async for answer in answers for s in answer.list_services_response.service]
    methods = []
    for name in names:
        if name.startswith("mooring."):
            async for answer in ask(iter([question(file_containing_symbol=name)])):
                for data in answer.file_descriptor_response.file_descriptor_proto:
                    file = descriptor_pb2.FileDescriptorProto.FromString(data)
                    methods += [
                        f"/{file.package}.{service.name}/{method.name}"
                        for service in file.service
                        for method in service.method
                        if f"{file.package}.{service.name}" == name
                    ]
    return methods


async def raw(peer: ServiceClient, method: str, data: bytes, **metadata: str | bytes) -> None:
    call: Any = peer.channel.unary_unary(method)
    await call(data, timeout=10, metadata=tuple(metadata.items()))


async def test_every_method_has_a_policy_and_every_policy_a_method(
    stack: Stack,
) -> None:
    methods = await reflected(stack.broker) + await reflected(stack.registry)
    assert sorted(methods) == sorted(POLICIES)
    assert Access.OPEN not in POLICIES.values()


async def test_no_method_answers_a_caller_without_a_valid_secret(stack: Stack) -> None:
    for method in POLICIES:
        peer = stack.broker if method.startswith("/mooring.broker") else stack.registry
        for metadata in ({}, {"authorization": "Bearer wrong"}, {"authorization": ""}):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await raw(peer, method, b"", **metadata)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_role_may_do_what_its_policy_says(stack: Stack) -> None:
    create = brokers_pb2.CreateBrokerRequest(
        fields=brokers_pb2.BrokerFields(name="x", host="h", port=1)
    )
    viewer, operator = Actor("v", Access.VIEWER), Actor("o", Access.OPERATOR)

    async def ask(method: str, request: Any, actor: Actor | None) -> Any:
        return await stack.broker.ask(
            brokers_pb2_grpc.BrokerServiceStub, method, request, actor=actor
        )

    with pytest.raises(Forbidden):
        await ask("CreateBroker", create, viewer)
    # This is the gateway's fault and not the person's: a gateway without a ticket is not trusted.
    with pytest.raises(Unavailable, match="not available"):
        await ask("CreateBroker", create, None)
    with pytest.raises(Unavailable, match="not available"):
        await ask("ListBrokers", brokers_pb2.ListBrokersRequest(), Actor("", Access.ADMIN))
    assert (await ask("CreateBroker", create, operator)).broker.id
    assert len((await ask("ListBrokers", brokers_pb2.ListBrokersRequest(), viewer)).brokers) == 2

    token = tokens_pb2.CreateTokenRequest(name="t", role=tokens_pb2.ROLE_ADMIN)
    with pytest.raises(Forbidden):
        await stack.registry.ask(
            tokens_pb2_grpc.TokenServiceStub, "CreateToken", token, actor=operator
        )


async def test_a_method_without_a_policy_is_refused(stack: Stack) -> None:
    method = "/mooring.broker.v1.ResolutionService/ResolveBroker"

    class Everything(resolution_pb2_grpc.ResolutionServiceServicer):
        async def ResolveBroker(self, request: Any, context: Any) -> Any:  # noqa: N802
            return resolution_pb2.ResolveBrokerResponse(url="leaked")

        @allows(Services(Identity.REGISTRY))
        async def ResolveBrokers(self, request: Any, context: Any) -> Any:  # noqa: N802
            raise ZeroDivisionError("a secret")

        async def ExplainResolution(self, request: Any, context: Any) -> Any:  # noqa: N802
            raise NotImplementedError

    async with serving(
        host="127.0.0.1",
        port=0,
        credentials=Credentials.of(stack.broker_config()),
        servicers=[Everything()],
        health=Health(),
        drain_s=0,
    ) as port:
        peer = await stack.peer(port)
        metadata = stack.metadata(caller=Identity.REGISTRY)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await raw(peer, method, b"", **metadata)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await raw(peer, method + "s", b"", **metadata)
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in str(failed.value.details())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(method=st.sampled_from(sorted(POLICIES)), data=st.binary(max_size=200))
def test_malformed_bytes_are_the_callers_fault(
    broken_bytes: "Runner", method: str, data: bytes
) -> None:
    code = broken_bytes.code_of(method, data)
    assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), (method, data)


class Runner:
    """Calls from synchronous code, on the loop that runs the services."""

    def __init__(self, stack: Stack, runner: asyncio.Runner) -> None:
        self._stack = stack
        self._runner = runner

    def code_of(self, method: str, data: bytes) -> grpc.StatusCode:
        return self._runner.run(self._call(method, data))

    async def _call(self, method: str, data: bytes) -> grpc.StatusCode:
        stack = self._stack
        peer = stack.broker if method.startswith("/mooring.broker") else stack.registry
        admin = Actor("fuzz", Access.ADMIN)
        try:
            await raw(peer, method, data, **stack.metadata(admin, calling_as(method)))
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.fixture
def broken_bytes(database: Any, tmp_path: Path) -> Any:
    with asyncio.Runner() as runner:
        services = started(database, tmp_path)
        stack = runner.run(services.__aenter__())
        try:
            yield Runner(stack, runner)
        finally:
            runner.run(services.__aexit__(None, None, None))


async def test_malformed_bytes_have_a_reason_of_their_own(stack: Stack) -> None:
    metadata = stack.metadata()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await raw(
            stack.registry,
            "/mooring.registry.v1.RegistrationService/RegisterDevices",
            b"\xff\xff\xff",
            **metadata,
        )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(refused.value.trailing_metadata())["mooring-reason"] == "MALFORMED_MESSAGE"


async def test_a_method_that_does_not_exist_is_unimplemented(stack: Stack) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await raw(stack.broker, "/mooring.broker.v1.BrokerService/Explode", b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_says_what_it_depends_on(stack: Stack) -> None:
    assert await stack.broker.is_serving()
    assert await stack.broker.is_serving("database")
    async with asyncio.timeout(5):
        while not await stack.registry.is_serving("broker_service"):
            await asyncio.sleep(0.02)
    assert await stack.registry.is_serving("database")
    assert not await stack.registry.is_serving("nonsense")


async def test_a_taken_port_is_named(stack: Stack) -> None:
    with pytest.raises(SystemExit, match=str(stack.broker_port)):
        async with broker_service.__main__.running(
            stack.broker_config(bind_port=stack.broker_port)
        ):
            pytest.fail("the service started on a taken port")


async def test_nothing_leaves_loopback_without_tls(stack: Stack) -> None:
    with pytest.raises(SystemExit, match="TLS_CERT_FILE"):
        async with broker_service.__main__.running(
            stack.broker_config(bind_host="0.0.0.0")  # noqa: S104
        ):
            pytest.fail("it listens beyond loopback without TLS")


async def test_an_unknown_schema_is_refused(stack: Stack) -> None:
    stack.database.execute("UPDATE alembic_version SET version_num = '9999'")
    for running in (
        broker_service.__main__.running(stack.broker_config()),
        registry_service.__main__.running(stack.registry_config()),
    ):
        with pytest.raises(SystemExit, match="9999"):
            async with running:
                pytest.fail("the service started on an unknown schema")


async def test_services_trust_one_another_by_certificate(stack: Stack, tmp_path: Path) -> None:
    ca, stranger = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")

    def files(name: str, issuer: trustme.CA) -> dict[str, Path | None]:
        names = (f"{name}.mooring.internal", "localhost", "127.0.0.1")
        certificate = issuer.issue_cert(*names, common_name=name)
        key_file, cert_file = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        certificate.private_key_pem.write_to_path(key_file)
        certificate.cert_chain_pems[0].write_to_path(cert_file)
        return {
            "tls_key_file": key_file,
            "tls_cert_file": cert_file,
            "tls_ca_file": tmp_path / "ca.pem",
            "caller_hashes_file": None,
        }

    async with broker_service.__main__.running(
        stack.broker_config(bind_host="0.0.0.0", **files("broker", ca))  # noqa: S104
    ) as port:
        trusted = stack.registry_config(caller_secret_file=None, **files("registry", ca))
        peer = Peer(f"localhost:{port}", Credentials.of(trusted))
        request = resolution_pb2.ResolveBrokerRequest(device_uuid="one")
        assert (await peer.resolution("ResolveBroker", request)).url == "mqtt://localhost:5883"
        await peer.close()

        for credentials in (
            Credentials.of(
                stack.registry_config(caller_secret_file=None, **files("stranger", stranger))
            ),
            stack.credentials,
        ):
            peer = Peer(f"localhost:{port}", credentials)
            assert not await peer.is_serving()
            await peer.close()
