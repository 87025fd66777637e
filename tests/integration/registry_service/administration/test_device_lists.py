"""Lists of devices take the same filters as jobs, with the same meaning."""

from typing import Any

import pytest
from mooring.registry.v1 import devices_pb2, devices_pb2_grpc, jobs_pb2, jobs_pb2_grpc

from chassis.errors import InvalidInput
from chassis.trust import Access, Actor
from tests.stack import Stack

MAKE = (
    "INSERT INTO devices (uuid, device_name, device_type, region, fleet_id, mqtt_broker_id,"
    " told_broker_ids, is_active, mqtt_username, mqtt_password_hash, credential_salt,"
    " provisioned_at)"
    " VALUES (%s, 'x', %s, %s, %s, %s, %s, %s, %s, '', '', NULL)"
)
# uuid, type, region, fleet, whether it is pinned, whether it was notified, whether it is active
DEVICES: list[tuple[Any, ...]] = [
    ("a-1", "pi", "eu", "demo", True, True, True),
    ("a-2", "pi", "", "other", False, False, True),
    ("b-1", "esp", "eu", "other", True, False, False),
    ("b-2", "esp32", "us", "demo", False, True, True),
]
ALL = {device[0] for device in DEVICES}
# The values of each condition, with what it means.
MEANT: dict[str, list[tuple[Any, set[str]]]] = {
    "fleet_id": [("demo", {"a-1", "b-2"}), ("none", set())],
    "device_type": [("pi", {"a-1", "a-2"}), ("esp", {"b-1"}), ("", set())],
    "region": [("eu", {"a-1", "b-1"}), ("", {"a-2"})],
    "mqtt_broker_id": [(0, {"a-2", "b-2"}), (1, {"a-1", "b-1"}), (7, set())],
    "told_broker_id": [(0, {"a-2", "b-1"}), (1, {"a-1", "b-2"})],
    "uuid_prefix": [("a-", {"a-1", "a-2"}), ("A", set())],
    "is_active": [(True, ALL - {"b-1"}), (False, {"b-1"})],
}


@pytest.fixture
async def filled(stack: Stack) -> Stack:
    await stack.create_fleet("other")
    for uuid, kind, region, fleet, is_pinned, was_told, is_active in DEVICES:
        pin = stack.default_broker_id if is_pinned else None
        told = [stack.default_broker_id] if was_told else []
        values = (uuid, kind, region, fleet, pin, told, is_active, uuid)
        stack.database.execute(MAKE, *values)
    return stack


async def listed(stack: Stack, actor: Actor, **request: Any) -> set[str]:
    """The uuids on all pages; the pages are short."""
    found, cursor = set(), ""
    while True:
        answer = await stack.registry.ask(
            devices_pb2_grpc.DeviceServiceStub,
            "ListDevices",
            devices_pb2.ListDevicesRequest(page_size=1, cursor=cursor, **request),
            actor=actor,
        )
        found |= {device.uuid for device in answer.devices}
        cursor = answer.next_cursor
        if not cursor:
            return found


async def in_a_job(stack: Stack, wanted: jobs_pb2.DeviceFilter) -> int:
    """How many devices a job with this filter concerns."""

    async def ask(method: str, request: Any) -> Any:
        return await stack.registry.ask(jobs_pb2_grpc.JobServiceStub, method, request)

    request = jobs_pb2.CreateJobRequest(kind="assign", filter=wanted)
    job = (await ask("CreateJob", request)).job
    checked = await ask("CheckJob", jobs_pb2.CheckJobRequest(id=job.id))
    return sum(checked.outcomes.values())


async def test_each_condition_means_the_same_for_lists_and_for_jobs(filled: Stack) -> None:
    viewer = Actor("v", Access.VIEWER)
    customer = Actor("c", Access.VIEWER, fleets=frozenset({"other"}))
    theirs = {device[0] for device in DEVICES if device[3] == "other"}
    assert await listed(filled, viewer, filter=jobs_pb2.DeviceFilter()) == ALL
    for name, cases in MEANT.items():
        for value, meant in cases:
            if name.endswith("_broker_id") and value == 1:
                value = filled.default_broker_id
            wanted: Any = jobs_pb2.DeviceFilter(**{name: value})
            assert await listed(filled, viewer, filter=wanted) == meant, (name, value)
            assert await listed(filled, customer, filter=wanted) == meant & theirs, (name, value)
            assert await in_a_job(filled, wanted) == len(meant), (name, value)
    both = jobs_pb2.DeviceFilter(device_type="pi", region="eu")
    assert await listed(filled, viewer, filter=both, fleet_id="demo") == {"a-1"}
    assert await listed(filled, viewer, filter=both, fleet_id="other") == set()
    demo = jobs_pb2.DeviceFilter(fleet_id="demo")
    assert await listed(filled, viewer, filter=demo, fleet_id="demo") == {"a-1", "b-2"}
    assert await listed(filled, viewer, filter=demo, fleet_id="other") == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("fleet_id", "a b"), ("uuid_prefix", ""), ("mqtt_broker_id", -1), ("told_broker_id", -1)),
        *(("device_type", "x" * 65), ("region", "a\nb")),
    ],
)
async def test_an_invalid_condition_is_refused(stack: Stack, name: str, value: Any) -> None:
    wanted: Any = jobs_pb2.DeviceFilter(**{name: value})
    with pytest.raises(InvalidInput) as refused:
        await listed(stack, Actor("v", Access.VIEWER), filter=wanted)
    assert refused.value.field == f"filter.{name}"


async def test_lists_are_filtered_by_what_devices_report(filled: Stack) -> None:
    for query, meant in (
        ("device_type=pi", {"a-1", "a-2"}),
        ("device_type=pi&region=eu", {"a-1"}),
        ("region=", {"a-2"}),
        ("region=eu&fleet_id=other", {"b-1"}),
        ("", ALL),
    ):
        answer = await filled.admin("GET", f"/devices?{query}")
        assert {device["uuid"] for device in answer.json()["items"]} == meant, query
    answer = await filled.admin("GET", f"/devices?region={'x' * 65}")
    assert (answer.status_code, answer.json()["field"]) == (422, "region")
