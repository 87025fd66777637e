"""A token of one customer tries every operation with each id of another one, and learns nothing.

The tests walk the OpenAPI document and the protos, so they cover what is new without naming it: a
route or method that states nothing about restricted tokens refuses them; one that does is tried.
An id of an unknown kind fails the test (see `tests.isolated`).
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
# Reasons of operations that refuse restricted tokens: some look for the device first.
REASONS = ("FORBIDDEN", "DEVICE_NOT_FOUND")
# The reason for a fleet that was found, but has no rollout.
HAS_NONE = "ROLLOUT_NOT_FOUND"
# Fields that a message need not name; restricted tokens are refused if it does.
OPTIONAL = {
    *("fields", "broker_ids", "default_broker_id"),
    *("active_broker_ids", "inactive_broker_ids"),
}
# Header fields that differ between any two answers.
VARYING = {"x-request-id", "date", "content-length"}
# The end of a range of time; without one, answers would depend on the present time.
UNTIL = "2026-01-01T00:00:00Z"


@dataclass
class World:
    """The services with both customers; `acme` is the one whose token is used."""

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
    """The names that stand for resources; each must be of a known kind."""
    found = [name for name in names if NAMES_A_THING.search(name) and name not in PLAIN_VALUES]
    unknown = [name for name in found if name not in KINDS]
    assert not unknown, f"say in tests/isolated.py what another customer's {unknown} is"
    return found


@dataclass(frozen=True)
class Operation:
    """An operation of the document, and the places for ids in it."""

    path: str
    method: str
    described: Mapping[str, Any]
    # The properties of the body, whether or not the example has them.
    properties: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.described["operationId"])

    @property
    def is_served(self) -> bool:
        """Whether the operation says that it serves restricted tokens."""
        return REFUSED not in self.described["description"]

    def named(self, place: str) -> list[str]:
        """The names of the parameters in the path or in the query."""
        return [p["name"] for p in self.described.get("parameters", ()) if p["in"] == place]

    def required(self) -> dict[str, str]:
        """The required parameters of the query, each with one of its allowed values."""
        return {
            p["name"]: p["schema"]["enum"][0]
            for p in self.described.get("parameters", ())
            if p["in"] == "query" and p["required"]
        }

    def slots(self) -> Iterator[tuple[str, str]]:
        """The places where an id can be, each with its name."""
        for name in self.named("path"):
            assert name in KINDS, f"say in tests/isolated.py what another customer's {name} is"
            yield "path", name
        if self.is_served:
            yield from (("query", name) for name in things_in(self.named("query")))
            yield from (("body", name) for name in things_in(self.properties))

    def asked(
        self, acme: Customer, slot: tuple[str, str] = ("", ""), other: Customer | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The path and the options of a request with `acme`'s ids, and `other`'s id in `slot`."""

        def whose(place: str, name: str) -> Customer:
            return other if other is not None and slot == (place, name) else acme

        path = self.path
        for name in self.named("path"):
            path = path.replace(f"{{{name}}}", str(whose("path", name).value(name)))
        options: dict[str, Any] = {"params": self.required()}
        if "until" in self.named("query"):
            options["params"]["until"] = UNTIL
        if slot[0] == "query":
            options["params"] |= {slot[1]: whose(*slot).value(slot[1])}
        if body := self.described.get("requestBody"):
            [(kind, shown)] = list(body["content"].items())[:1]
            example = copy.deepcopy(shown["example"])
            for item in example if isinstance(example, list) else [example]:
                if isinstance(item, dict) and self.is_served:
                    # Restricted tokens may not set the allowance of a fleet.
                    item.pop("allowed_broker_ids", None)
                    present = {*item, *(slot[1:] if slot[0] == "body" else ())}
                    item |= {name: whose("body", name).value(name) for name in things_in(present)}
            content = example if isinstance(example, str) else json.dumps(example)
            options |= {"content": content, "headers": {"Content-Type": kind}}
        return path, options


def operations(document: dict[str, Any]) -> list[Operation]:
    """The operations that take an API token; those that delete come last."""
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


def revealed(response: httpx2.Response, whose: Customer) -> Any:
    """Everything that an answer reveals; the ids that were asked about are masked."""
    headers = {name: value for name, value in response.headers.items() if name not in VARYING}
    text = response.text
    for thing in whose.things.values():
        if isinstance(thing, str):
            text = text.replace(thing, "…")
    body = json.loads(text) if text else None
    if isinstance(body, dict):
        body.pop("request_id", None)
    return response.status_code, headers, body


async def test_resources_of_another_customer_are_answered_like_missing_ones(world: World) -> None:
    """The answers are the same, byte for byte, and nothing changes."""
    acme, walked = world.acme, set()
    before = world.stored.now()
    for operation in operations(world.document):
        for slot in operation.slots():
            walked.add((operation.name, *slot))
            rivals = await answer(world, operation, operation.asked(acme, slot, world.rival))
            assert rivals.status_code != 500, rivals.text
            assert "rival" not in str(revealed(rivals, world.rival)), (operation.name, slot)
            assert world.stored.now() == before, (operation.name, slot, rivals.text)
            if slot == ("body", "uuid"):
                # A uuid belongs to one device: the answer shows that it is taken, but not by which
                # customer.
                assert "FORBIDDEN" in rivals.text, rivals.text
                continue
            missing = await answer(world, operation, operation.asked(acme, slot, NOBODY))
            assert world.stored.now() == before, (operation.name, slot, missing.text)
            assert revealed(rivals, world.rival) == revealed(missing, NOBODY), (
                operation.name,
                slot,
            )
            if slot[0] == "path":
                assert rivals.status_code in (403, 404), (operation.name, rivals.text)
            if not operation.is_served:
                assert rivals.json()["reason"] in REASONS, (operation.name, rivals.text)
    assert ("update_device_put", "body", "mqtt_broker_id") in walked
    assert ("list_devices", "query", "fleet_id") in walked
    assert len(walked) > 35


async def test_own_resources_are_served_where_the_document_says_so(world: World) -> None:
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


async def test_lists_and_cursors_contain_own_resources_only(world: World) -> None:
    """Reads one item a page; items of the rival come before and after."""
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
                # The cursor names the last item of the page, and so no item of the rival; or it is
                # encrypted.
                last = base64.urlsafe_b64decode(cursor)
                assert b"rival" not in last
                is_encrypted = operation.path.endswith("/devices")
                assert is_encrypted or json.loads(last) in items[-1].values(), operation.name
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
        "pools": 1,
        "provisioning-keys": 4,
    }


def fields_of(method: MethodDescriptor) -> Iterator[tuple[tuple[str, ...], FieldDescriptor, str]]:
    """Every field of a request that names a resource: its path, the field and the kind."""

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
    """A request with `acme`'s ids, and `other`'s in `slot`; optional fields are not set."""
    request: Message = message_factory.GetMessageClass(method.input_type)()
    for path, field, kind in fields_of(method):
        is_slot = path == slot
        if not is_slot and (path[0] in OPTIONAL or path[-1] in OPTIONAL):
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
    if "step" in method.input_type.fields_by_name:
        request.step = 1  # type: ignore[attr-defined]
        request.until.FromJsonString(UNTIL)  # type: ignore[attr-defined]
    for mask in ("update_mask", "mask"):
        if mask in method.input_type.fields_by_name and slot[0] == "fields":
            getattr(request, mask).paths.append(slot[1])
    return request


async def test_services_restrict_tokens_even_if_the_gateway_does_not(world: World) -> None:
    """Calls every method with every id, as the gateway would."""
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
            rivals = await outcome(method, request_of(method, world.acme, slot, world.rival))
            assert world.stored.now() == before, (name, slot, rivals)
            assert "rival" not in str(rivals), (name, slot)
            if slot == ("expected_devices", "uuid"):
                assert [each.error.reason for each in rivals.refused] == ["FORBIDDEN"]
                continue
            missing = await outcome(method, request_of(method, world.acme, slot, NOBODY))
            assert world.stored.now() == before, (name, slot, missing)
            assert rivals == missing, (name, slot)
            assert "INTERNAL" not in str(rivals), (name, slot)
    assert {("GetBroker", "id"), ("ExplainResolution", "device_uuid")} <= walked
    assert {("UpdateProvisioningKey", "default_broker_id"), ("UpdateDevice", "uuid")} <= walked
