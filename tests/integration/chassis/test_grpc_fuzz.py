"""No message makes any method of any service fail with an internal error; found by descriptor."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mooring.errors.v1 import errors_pb2

from chassis.errors import FIELD, REASON
from chassis.trust import Access, Actor
from tests.integration.chassis.test_guarded_server import calling_as, reflected
from tests.stack import Stack
from tests.stored import Stored

EXAMPLES = settings(
    max_examples=30,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
NEVER = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)

# Texts that exist, so that some calls get far, and texts that are never valid.
TEXTS = st.sampled_from(
    [
        *("demo", "test-device-123", "Local Broker", "localhost", "mqtts", "/mqtt", "eu"),
        *("", " ", "\0", "a\0b", "\x7f", "💥", "é", "../..", "%00", "a b", "'; --", "{}", "null"),
        *("x" * 64, "x" * 65, "x" * 300, "x" * 100_000, "💥" * 30_000, "[::1]", "fe80::1%eth0"),
        *(
            "bnVsbA==",
            "MQ==",
            "LTE=",
            "Ilx1MDAwMCI=",
            "////",
            "00000000-0000-0000-0000-000000000000",
        ),
        *("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",),
    ]
) | st.text(max_size=40)
WHOLE = st.integers(-1, 5)
EDGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
MAX_DEPTH = 5
MAX_REPEATED = 3


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Anything that the type of the field, which is not a message type, can hold."""
    kind = field.cpp_type
    if kind in EDGES:
        lowest, highest = EDGES[kind]
        edges = [lowest, highest, *(edge for edge in (500, 501, 65_535, 65_536))]
        return st.sampled_from(edges) | WHOLE.map(lambda number: max(lowest, number))
    if field.enum_type is not None:
        return st.sampled_from([*(value.number for value in field.enum_type.values), 99])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats(width=32) | st.sampled_from([0.0, 90.0, 181.0])
    return st.binary(max_size=40) if field.type == FieldDescriptor.TYPE_BYTES else TEXTS


def right(field: FieldDescriptor, candidates: Sequence[Any]) -> st.SearchStrategy[Any]:
    """A value that may be valid: one of `candidates` that has the field's type."""
    kinds: dict[int, type] = {
        FieldDescriptor.CPPTYPE_STRING: bytes if field.type == field.TYPE_BYTES else str,
        FieldDescriptor.CPPTYPE_BOOL: bool,
    }
    kind = kinds.get(field.cpp_type, int)
    fitting = [value for value in candidates if type(value) is kind]
    return st.sampled_from(fitting or [kind()])


@st.composite
def messages(
    draw: st.DrawFn,
    descriptor: Descriptor,
    exists: Mapping[str, Sequence[Any]],
    depth: int = 0,
    paths: Sequence[str] = (),
) -> dict[str, Any]:
    """Names and values of the fields to set: most values valid, some arbitrary."""
    if descriptor.full_name == "google.protobuf.FieldMask":
        named = st.sampled_from(paths) if paths else st.nothing()
        return {"paths": draw(st.lists(named, max_size=4) | st.lists(TEXTS, max_size=2))}
    if depth > MAX_DEPTH or not descriptor.fields:
        return {}
    beside = [
        inner.name
        for field in descriptor.fields
        if field.message_type is not None and field.name == "fields"
        for inner in field.message_type.fields
    ]
    anything = st.sets(st.sampled_from([field.name for field in descriptor.fields]), max_size=2)
    wild = draw(anything) if draw(st.booleans()) else set()
    found = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            strategy: Any = messages(field.message_type, exists, depth + 1, beside)
        elif field.name in wild:
            strategy = values(field)
        else:
            strategy = right(field, exists.get(field.name, ()))
        if field.is_repeated:
            strategy = st.lists(strategy, max_size=MAX_REPEATED)
        if field.name in wild or field.name in exists or draw(st.booleans()):
            found[field.name] = draw(strategy)
    return found


def made(descriptor: Descriptor, fields: dict[str, Any]) -> Message:
    """The message with these fields; of a oneof, the last one that is set stays."""
    message = message_factory.GetMessageClass(descriptor)()
    for name, value in fields.items():
        field = descriptor.fields_by_name[name]
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            for entry in value:
                put(getattr(message, name), kind, entry)
        elif field.is_repeated:
            getattr(message, name).extend(
                [made(kind, each) for each in value] if kind is not None else value
            )
        elif kind is not None:
            getattr(message, name).CopyFrom(made(kind, value))
        else:
            setattr(message, name, value)
    return message


def put(found: Any, entry: Descriptor, fields: dict[str, Any]) -> None:
    """Adds an entry to a map; what is not set in the entry is empty."""
    each: Any = made(entry, fields)
    if entry.fields_by_name["value"].message_type is not None:
        found[each.key].CopyFrom(each.value)
    else:
        found[each.key] = each.value


def faults_of(error: grpc.RpcError) -> tuple[Any, str, str]:
    """The code, the reason and the field of an error."""
    failed: Any = error
    trailers = {key: str(value) for key, value in failed.trailing_metadata() or ()}
    return failed.code(), trailers.get(REASON, ""), trailers.get(FIELD, "")


def items_at_fault(answer: Message) -> Iterator[errors_pb2.ItemError]:
    """The errors of a batch's items, wherever they are in the answer."""
    if isinstance(answer, errors_pb2.ItemError):
        yield answer
    for field, value in answer.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                if isinstance(inner, Message):
                    yield from items_at_fault(inner)


def methods_of(names: Sequence[str]) -> Iterator[MethodDescriptor]:
    """Methods by their full names, which contain a slash."""
    pool: Any = descriptor_pool.Default()
    for name in names:
        service, method = name.lstrip("/").split("/")
        yield pool.FindServiceByName(service).methods_by_name[method]


@pytest.mark.parametrize("service", ["broker", "registry"])
async def test_every_method_says_what_is_wrong_with_a_message(stack: Stack, service: str) -> None:
    await stack.register()
    [(key_id,)] = stack.database.execute("SELECT id::text FROM provisioning_keys")
    secret = (await stack.admin("POST", "/brokers/1/secrets")).json()
    account = (await stack.admin("POST", "/service-accounts", json={"username": "one"})).json()
    exists: dict[str, list[Any]] = {
        "id": [1, 2, "demo", key_id, secret["id"], account["id"]],
        # The ids of a fleet and of a broker.
        "ids": ["demo", 1],
        "username": ["one", "two"],
        "publish": ["a/#"],
        "subscribe": ["+/b"],
        "uuid": ["test-device-123"],
        "device_uuid": ["test-device-123"],
        "fleet_id": ["demo"],
        "mqtt_broker_id": [1],
        "broker_id": [1],
        "broker_ids": [1],
        "default_broker_id": [1],
        "backup_broker_id": [1],
        "name": ["Local Broker", "new"],
        "host": ["localhost"],
        "port": [1883],
        "protocol": ["mqtt", "wss"],
        "keep_alive": [60],
        "connect_timeout": [1],
        "role": [1, 2, 3],
        "provisioning_key": [stack.provisioning_key],
        "device_api_key": ["test-api-key"],
        "device_name": ["d"],
        "device_type": ["t"],
        "max_devices": [5],
        "secret": [stack.admin_token],
        # A day in 2100, for times that have to be in the future.
        "seconds": [4_102_444_800],
        "page_size": [1],
        "cursor": [""],
        # The key and value of a label.
        "key": ["site"],
        "value": ["berlin"],
    }
    peer, port = {
        "broker": (stack.broker, stack.broker_port),
        "registry": (stack.registry, stack.registry_port),
    }[service]
    # Methods that delete or revoke come last.
    names = sorted(await reflected(peer), key=lambda name: ("/Delete" in name, "/Revoke" in name))
    assert names
    fuzzer = Actor("fuzz", Access.ADMIN)

    def proofs(full_name: str) -> tuple[tuple[str, str | bytes], ...]:
        # A ticket is valid for a minute, and this takes longer.
        return tuple(stack.metadata(fuzzer, calling_as(full_name)).items())

    def fuzz_all() -> None:
        with (
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
            psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection,
        ):
            stored = Stored(connection)
            for method in methods_of(names):
                service_name = method.containing_service.full_name
                path = f"/{service_name}/{method.name}"
                if method.server_streaming:
                    stream: Any = channel.unary_stream(path)
                    fuzz_one(method, lambda *given, s=stream, **how: [*s(*given, **how)], stored)
                else:
                    unary: Any = channel.unary_unary(path)
                    fuzz_one(method, lambda *given, u=unary, **how: [u(*given, **how)], stored)

    def fuzz_one(method: MethodDescriptor, call: Any, stored: Stored) -> None:
        full_name = f"/{method.containing_service.full_name}/{method.name}"
        name, answers = method.name, message_factory.GetMessageClass(method.output_type)

        @EXAMPLES
        @given(messages(method.input_type, exists))
        def fuzz(fields: dict[str, Any]) -> None:
            message = made(method.input_type, fields)
            before = stored.now()
            try:
                proof = proofs(full_name)
                for answer in call(message.SerializeToString(), timeout=20, metadata=proof):
                    for item in items_at_fault(answers.FromString(answer)):
                        never = [code.value[0] for code in NEVER]
                        assert item.code not in never, (name, item, fields)
                        assert item.reason, (name, item, fields)
            except grpc.RpcError as error:
                code, reason, field = faults_of(error)
                assert code not in NEVER, (name, code, reason, fields)
                assert reason, (name, code, fields)
                assert field or code is not grpc.StatusCode.INVALID_ARGUMENT, (name, fields)
                assert stored.now() == before, (name, code, reason, fields)

        fuzz()

    await asyncio.to_thread(fuzz_all)
