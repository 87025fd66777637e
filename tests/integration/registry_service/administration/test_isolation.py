"""A token of one customer tries everything with every id of another's, and learns nothing.

What is walked is the OpenAPI document and the protos, so that what is new is covered without being
named here: a route or method that states nothing about restricted tokens refuses them, one that
does is tried, and an id of a kind that is not known yet stops the walk (see `tests.isolated`).
"""

import base64
import copy
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx2
import psycopg
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from chassis.errors import FIELD, REASON
from chassis.trust import Access, Actor, WithinFleets
from tests.integration.chassis.test_guarded_server import POLICIES
from tests.integration.gateway.test_document import document_of, operations_of, turn_of
from tests.isolated import (
    KIND_OF_ID,
    KINDS,
    NAMES_A_THING,
    NOBODY,
    PLAIN_VALUES,
    Customer,
    customer,
    made,
)
from tests.stack import Database, Stack, started
from tests.stored import Stored

REFUSED = "Not for tokens that are restricted to fleets."
# Of an operation that refuses them: one that asks for the device first may not find it.
REASONS = ("FORBIDDEN", "DEVICE_NOT_FOUND")
# Said of a fleet that was found.
HAS_NONE = "ROLLOUT_NOT_FOUND"
# What a message need not name, and what is refused to them where it does.
LEFT_ALONE = {
    *("fields", "broker_ids", "default_broker_id"),
    *("active_broker_ids", "inactive_broker_ids"),
}
# Differ from one answer to the next, whatever was asked.
OF_THE_MOMENT = {"x-request-id", "date", "content-length"}


@dataclass
class World:
    """The services with both customers, `acme` being the one who tries."""

    stack: Stack
    acme: Customer
    rival: Customer
    document: dict[str, Any]
    stored: Stored


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    async with started(database, tmp_path) as stack:
        acme, rival = await customer(stack, "acme"), await customer(stack, "rival")
        document = await document_of(stack)
        with psycopg.connect(database.url("mooring"), autocommit=True) as connection:
            yield World(stack, acme, rival, document, Stored(connection))


def things_in(names: Any) -> list[str]:
    """Those that name things; each must be of a kind that is known."""
    found = [name for name in names if NAMES_A_THING.search(name) and name not in PLAIN_VALUES]
    unknown = [name for name in found if name not in KINDS]
    assert not unknown, f"say in tests/isolated.py what another customer's {unknown} is"
    return found


@dataclass(frozen=True)
class Operation:
    """An operation of the document, and what can be put into it."""

    path: str
    method: str
    described: Mapping[str, Any]
    # Of the body, whether the example names them or not.
    properties: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.described["operationId"])

    @property
    def is_served(self) -> bool:
        """Whether it says that it serves tokens that are restricted."""
        return REFUSED not in self.described["description"]

    def named(self, place: str) -> list[str]:
        """The parameters of the path, or of the query."""
        return [p["name"] for p in self.described.get("parameters", ()) if p["in"] == place]

    def demanded(self) -> dict[str, str]:
        """What the query cannot do without: one of the values that may stand there."""
        return {
            p["name"]: p["schema"]["enum"][0]
            for p in self.described.get("parameters", ())
            if p["in"] == "query" and p["required"]
        }

    def slots(self) -> Iterator[tuple[str, str]]:
        """The places where an id can stand, and what they are called there."""
        for name in self.named("path"):
            assert name in KINDS, f"say in tests/isolated.py what another customer's {name} is"
            yield "path", name
        if self.is_served:
            yield from (("query", name) for name in things_in(self.named("query")))
            yield from (("body", name) for name in things_in(self.properties))

    def asked(
        self, acme: Customer, slot: tuple[str, str] = ("", ""), other: Customer | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The path and the rest of a request about `acme`'s, and `other`'s in one place."""

        def whose(place: str, name: str) -> Customer:
            return other if other is not None and slot == (place, name) else acme

        path = self.path
        for name in self.named("path"):
            path = path.replace(f"{{{name}}}", str(whose("path", name).value(name)))
        options: dict[str, Any] = {"params": self.demanded()}
        if slot[0] == "query":
            options["params"] |= {slot[1]: whose(*slot).value(slot[1])}
        if body := self.described.get("requestBody"):
            [(kind, shown)] = list(body["content"].items())[:1]
            example = copy.deepcopy(shown["example"])
            for item in example if isinstance(example, list) else [example]:
                if isinstance(item, dict) and self.is_served:
                    # Whoever is kept within fleets never says what keeps them there.
                    item.pop("allowed_broker_ids", None)
                    present = {*item, *(slot[1:] if slot[0] == "body" else ())}
                    item |= {name: whose("body", name).value(name) for name in things_in(present)}
            content = example if isinstance(example, str) else json.dumps(example)
            options |= {"content": content, "headers": {"Content-Type": kind}}
        return path, options


def operations(document: dict[str, Any]) -> list[Operation]:
    """Those for people; what takes things away comes last."""
    found = []
    for path, method, described in operations_of(document):
        if described.get("security") != [{"apiToken": []}]:
            continue
        properties: tuple[str, ...] = ()
        if body := described.get("requestBody", {}).get("content", {}).get("application/json"):
            schema = body["schema"].get("items", body["schema"])
            name = schema.get("$ref", "").rpartition("/")[2]
            properties = tuple(document["components"]["schemas"][name]["properties"])
        found.append(Operation(path, method, described, properties))
    assert len(found) > 30
    return sorted(found, key=lambda operation: turn_of(operation.method, operation.path))


async def answer(
    world: World, operation: Operation, asked: tuple[str, dict[str, Any]]
) -> httpx2.Response:
    path, options = asked
    headers = {**options.pop("headers", {}), "Authorization": f"Bearer {world.acme.token}"}
    method = operation.method.upper()
    return await world.stack.http.request(method, path, headers=headers, **options)


def told(response: httpx2.Response, whose: Customer) -> Any:
    """All that an answer tells; an id that was asked about is no news."""
    headers = {name: value for name, value in response.headers.items() if name not in OF_THE_MOMENT}
    text = response.text
    for thing in whose.things.values():
        if isinstance(thing, str):
            text = text.replace(thing, "…")
    body = json.loads(text) if text else None
    if isinstance(body, dict):
        body.pop("request_id", None)
    return response.status_code, headers, body


async def test_what_is_another_customers_is_not_there(world: World) -> None:
    """The same answer, to the letter, as for what does not exist; and nothing has changed."""
    acme, walked = world.acme, set()
    before = world.stored.now()
    for operation in operations(world.document):
        for slot in operation.slots():
            walked.add((operation.name, *slot))
            theirs = await answer(world, operation, operation.asked(acme, slot, world.rival))
            assert theirs.status_code != 500, theirs.text
            assert "rival" not in str(told(theirs, world.rival)), (operation.name, slot)
            assert world.stored.now() == before, (operation.name, slot, theirs.text)
            if slot == ("body", "uuid"):
                # A uuid is one device's: who has it is not said, that it is taken cannot be hidden.
                assert "FORBIDDEN" in theirs.text, theirs.text
                continue
            nobodys = await answer(world, operation, operation.asked(acme, slot, NOBODY))
            assert world.stored.now() == before, (operation.name, slot, nobodys.text)
            assert told(theirs, world.rival) == told(nobodys, NOBODY), (operation.name, slot)
            if slot[0] == "path":
                assert theirs.status_code in (403, 404), (operation.name, theirs.text)
            if not operation.is_served:
                assert theirs.json()["reason"] in REASONS, (operation.name, theirs.text)
    assert ("update_device_put", "body", "mqtt_broker_id") in walked
    assert ("list_devices", "query", "fleet_id") in walked
    assert len(walked) > 35


async def test_what_is_their_own_is_there_where_that_is_stated(world: World) -> None:
    served = set()
    for operation in operations(world.document):
        response = await answer(world, operation, operation.asked(world.acme))
        reason = response.json()["reason"] if response.status_code >= 400 else ""
        if operation.is_served:
            served.add(operation.name)
            is_there = response.status_code not in (401, 403, 404) or reason == HAS_NONE
            assert is_there, (operation.name, response.text)
        else:
            assert reason == "FORBIDDEN", (operation.name, response.text)
        assert "rival" not in response.text, operation.name
        assert "Local Broker" not in response.text, operation.name
    assert {"get_device", "update_fleet", "create_provisioning_key", "get_broker"} <= served


async def test_lists_and_their_cursors_are_of_their_own(world: World) -> None:
    """A page at a time, among things of the rival's on both sides."""
    stack = world.stack
    for name in ("acme", "rival", "acme", "rival"):
        await made(stack, "/provisioning-keys", {"fleet_id": name, "description": name})
    for uuid, name in (("aa", "rival"), ("ab", "acme"), ("zy", "acme"), ("zz", "rival")):
        await made(stack, "/expected-devices", {"uuid": uuid, "fleet_id": name})
    for uuid, name in (("rival-2", "rival"), ("acme-2", "acme"), ("rival-3", "rival")):
        key = await made(stack, "/provisioning-keys", {"fleet_id": name})
        assert (await stack.register(uuid, key=key["key"])).status_code == 201
    headers = {"Authorization": f"Bearer {world.acme.token}"}
    lengths: dict[str, int] = {}
    for operation in operations(world.document):
        if "cursor" not in operation.named("query") or not operation.is_served:
            continue
        items, cursor = [], ""
        while cursor is not None:
            params = {"limit": "1", "cursor": cursor}
            page = (await stack.http.get(operation.path, params=params, headers=headers)).json()
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is not None:
                # It names the last item that was seen, and so none of the rival's.
                last = json.loads(base64.urlsafe_b64decode(cursor))
                assert last in items[-1].values(), operation.name
        assert len(items) == len({json.dumps(item) for item in items})
        assert "rival" not in json.dumps(items), operation.name
        everything = await stack.admin("GET", operation.path.removeprefix("/api/v1"))
        assert len(items) < len(everything.json()["items"]), operation.name
        lengths[operation.path.rpartition("/")[2]] = len(items)
    assert lengths == {
        "brokers": 1,
        "devices": 2,
        "expected-devices": 3,
        "fleets": 1,
        "provisioning-keys": 4,
    }


def fields_of(method: MethodDescriptor) -> Iterator[tuple[tuple[str, ...], FieldDescriptor, str]]:
    """Every field of a method's request that names a thing: where it is, and what it names."""

    def walk(message: Any, path: tuple[str, ...]) -> Iterator[Any]:
        for field in message.fields:
            here = (*path, field.name)
            if field.message_type is not None and not field.message_type.full_name.startswith(
                "google."
            ):
                yield from walk(field.message_type, here)
            elif field.name == "id":
                service = method.containing_service.name
                assert service in KIND_OF_ID, f"say in tests/isolated.py what {service}'s id is of"
                yield here, field, KIND_OF_ID[service]
            elif things_in([field.name]):
                yield here, field, KINDS[field.name]

    yield from walk(method.input_type, ())


def request_of(
    method: MethodDescriptor, acme: Customer, slot: tuple[str, ...], other: Customer
) -> Message:
    """About `acme`'s, and `other`'s in one place; what may be changed beside it is left alone."""
    request: Message = message_factory.GetMessageClass(method.input_type)()
    for path, field, kind in fields_of(method):
        is_slot = path == slot
        if not is_slot and (path[0] in LEFT_ALONE or path[-1] in LEFT_ALONE):
            continue
        within: Any = request
        for step in path[:-1]:
            inner = getattr(within, step)
            is_repeated = within.DESCRIPTOR.fields_by_name[step].is_repeated
            within = (inner[0] if inner else inner.add()) if is_repeated else inner
        value = (other if is_slot else acme).things[kind]
        if field.is_repeated:
            getattr(within, field.name).append(value)
        else:
            setattr(within, field.name, value)
    for mask in ("update_mask", "mask"):
        if mask in method.input_type.fields_by_name and slot[0] == "fields":
            getattr(request, mask).paths.append(slot[1])
    return request


async def test_services_keep_them_within_by_themselves(world: World) -> None:
    """Whatever the gateway does: every method, with every id, as the gateway would ask."""
    actor = Actor("acme", Access.OPERATOR, world.acme.things["token"], frozenset({"acme"}))
    metadata = tuple(world.stack.metadata(actor).items())
    pool: Any = descriptor_pool.Default()
    before, walked = world.stored.now(), set()

    async def outcome(method: MethodDescriptor, request: Message) -> Any:
        name = f"/{method.containing_service.full_name}/{method.name}"
        peer = world.stack.broker if ".broker." in name else world.stack.registry
        call: Any = peer.channel.unary_unary(name)
        try:
            data = await call(request.SerializeToString(), timeout=10, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            return error.code(), error.details(), trailers.get(REASON), trailers.get(FIELD)
        return message_factory.GetMessageClass(method.output_type).FromString(data)

    for name, policy in POLICIES.items():
        if not isinstance(policy, WithinFleets):
            continue
        service, verb = name.lstrip("/").split("/")
        method = pool.FindServiceByName(service).methods_by_name[verb]
        for slot, _, _ in fields_of(method):
            walked.add((verb, slot[-1]))
            theirs = await outcome(method, request_of(method, world.acme, slot, world.rival))
            assert world.stored.now() == before, (name, slot, theirs)
            assert "rival" not in str(theirs), (name, slot)
            if slot == ("expected_devices", "uuid"):
                assert [each.error.reason for each in theirs.refused] == ["FORBIDDEN"]
                continue
            nobodys = await outcome(method, request_of(method, world.acme, slot, NOBODY))
            assert world.stored.now() == before, (name, slot, nobodys)
            assert theirs == nobodys, (name, slot)
            assert "INTERNAL" not in str(theirs), (name, slot)
    assert {("GetBroker", "id"), ("ExplainResolution", "device_uuid")} <= walked
    assert {("UpdateProvisioningKey", "default_broker_id"), ("UpdateDevice", "uuid")} <= walked
