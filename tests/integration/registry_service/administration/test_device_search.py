"""A list, a count and a job mean the same devices by a filter: those that a plain model means."""

import asyncio
import dataclasses
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mooring.registry.v1 import devices_pb2, devices_pb2_grpc, jobs_pb2, jobs_pb2_grpc

from chassis.errors import InvalidInput
from chassis.trust import Access, Actor
from registry_service.administration.devices import drivers, facets, filter_store
from registry_service.device_filter import conditions_of, filter_of
from tests.pools import make_pool
from tests.stack import Stack

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
COLUMNS = (
    *("uuid", "device_name", "device_type", "region", "fleet_id", "mqtt_broker_id", "pool_id"),
    *("told_broker_ids", "is_active", "is_online", "has_short_api_key", "credential_key_id"),
    *("provisioned_by_key_id", "provisioned_at"),
)
MAKE = (
    f"INSERT INTO devices ({', '.join(COLUMNS)}, mqtt_username, api_key_hash,"
    f" mqtt_password_hash, credential_salt) VALUES ({'%s, ' * (len(COLUMNS) + 2)}'', '')"
)
FLEETS = ("demo", "other", "third")
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
# Beginnings of names and uuids, with all that is special to some pattern.
TEXTS = (
    *("", "a", "A", "ab", "a_", "a%", "a\\", "%", "_", "-"),
    *("Pump", "pump 1", "\u00e9", "'", "b"),
)
DEVICES = 120


def registered(minute: int) -> datetime:
    return BEGINNING + timedelta(minutes=minute)


@dataclasses.dataclass(frozen=True)
class Device:
    """The columns of a device, with which the model decides."""

    uuid: str
    device_name: str
    device_type: str
    region: str
    fleet_id: str
    mqtt_broker_id: int | None
    pool_id: int | None
    told_broker_ids: Sequence[int]
    is_active: bool
    is_online: bool
    has_short_api_key: bool
    credential_key_id: int | None
    provisioned_by_key_id: str | None
    provisioned_at: datetime | None

    @property
    def row(self) -> tuple[Any, ...]:
        """The parameters of `MAKE`."""
        api_key_hash = None if self.provisioned_by_key_id is None else b""
        return (*dataclasses.astuple(self), self.uuid, api_key_hash)

    @property
    def facts(self) -> dict[str, Any]:
        """What conditions compare, by their names."""
        return {
            **{name: getattr(self, name) for name in ("fleet_id", "device_type", "region")},
            "mqtt_broker_id": self.mqtt_broker_id or 0,
            "pool_id": self.pool_id or 0,
            "told_broker_id": (*self.told_broker_ids, 0)[0],
            "provisioned_by_key_id": self.provisioned_by_key_id or "",
            "credential_key_id": self.credential_key_id or 0,
            "is_active": self.is_active,
            "is_online": self.is_online,
            "is_pinned": self.mqtt_broker_id is not None,
            "short_api_key": self.has_short_api_key,
        }

    def found_by(self, text: str) -> bool:
        """Whether a search for `text` finds it. The tests' database has ASCII letters only."""
        return self.uuid.startswith(text) or self.device_name.lower().startswith(text.lower())


def means(conditions: Mapping[str, Any], device: Device) -> bool:
    """Whether a filter means a device."""
    return all(_means(name, wanted, device) for name, wanted in conditions.items())


def _means(name: str, wanted: Any, device: Device) -> bool:
    if name.startswith("not_"):
        return not any(_means(name.removeprefix("not_"), one, device) for one in wanted)
    match name:
        case "search":
            return device.found_by(wanted)
        case "uuid_prefix":
            return device.uuid.startswith(wanted)
        case "registered_since":
            moment = datetime.fromisoformat(wanted)
            return device.provisioned_at is not None and device.provisioned_at >= moment
        case "registered_before":
            moment = datetime.fromisoformat(wanted)
            return device.provisioned_at is not None and device.provisioned_at < moment
    return bool(device.facts[name] == wanted)


@dataclasses.dataclass
class Filled:
    """A stack with devices of all kinds."""

    stack: Stack
    devices: list[Device]
    brokers: list[int]
    pools: list[int]
    keys: list[str]

    @property
    def values(self) -> dict[str, list[Any]]:
        """The values of each field that devices have, one that none has, and that for none."""
        return {
            "fleet_id": [*FLEETS, "none"],
            "device_type": ["pi", "esp", "esp32", "x"],
            "region": ["eu", "us", "", "x"],
            "mqtt_broker_id": [0, *self.brokers, 77],
            "pool_id": [0, *self.pools, 77],
            "told_broker_id": [0, *self.brokers, 77],
            "provisioned_by_key_id": ["", *self.keys, "8a6f2f0e-3a53-4d0c-9d5e-0c1f7c1b2a11"],
            "credential_key_id": [0, 1, 2, 77],
        }

    def filters(self) -> st.SearchStrategy[dict[str, Any]]:
        """Conditions as the registry keeps them."""
        fields: dict[str, st.SearchStrategy[Any]] = {
            name: st.sampled_from(values) for name, values in self.values.items()
        }
        prefixes = st.sampled_from(["a", "ab", "b-", "-", "_", "A", "zz"])
        texts = st.sampled_from([text for text in TEXTS if text])
        minutes = st.integers(0, DEVICES).map(lambda minute: registered(minute).isoformat())
        excluded = {
            f"not_{name}": st.lists(values, min_size=1, max_size=3, unique=True)
            for name, values in {**fields, "uuid_prefix": prefixes, "search": texts}.items()
        }
        conditions = {
            **fields,
            "uuid_prefix": prefixes,
            "search": texts,
            "registered_since": minutes,
            "registered_before": minutes,
            **{
                name: st.booleans()
                for name in ("is_active", "is_online", "is_pinned", "short_api_key")
            },
            **excluded,
        }
        assert set(conditions) == set(jobs_pb2.DeviceFilter.DESCRIPTOR.fields_by_name)
        return st.fixed_dictionaries({}, optional=conditions).map(few)


def chance(seed: int | str) -> random.Random:
    return random.Random(seed)  # noqa: S311


def few(conditions: dict[str, Any]) -> dict[str, Any]:
    """Three conditions at most, since more mean no device."""
    names = sorted(conditions)
    chance(json.dumps(conditions, sort_keys=True)).shuffle(names)
    return {name: conditions[name] for name in names[:3]}


def made(
    source: random.Random, number: int, brokers: list[int], pools: list[int], keys: list[str]
) -> Device:
    beginning = source.choice(["a", "ab", "a_", "b-", "A", "-", "_", "Pump"])
    name = source.choice(TEXTS) + source.choice(["", "b", "Z", "%", "1", "\U0010ffff"])
    uuid = f"{beginning}{number}"
    fleet = source.choice(FLEETS)
    key = keys[FLEETS.index(fleet)] if source.random() < 0.7 else None
    return Device(
        uuid=uuid,
        device_name=name or uuid,
        device_type=source.choice(["pi", "esp", "esp32"]),
        region=source.choice(["", "", "eu", "us"]),
        fleet_id=fleet,
        mqtt_broker_id=source.choice([None, None, *brokers]),
        pool_id=source.choice([None, None, *pools]),
        told_broker_ids=source.choice([[], *([broker] for broker in brokers), [*brokers]]),
        is_active=source.random() < 0.8,
        is_online=source.random() < 0.5,
        has_short_api_key=source.random() < 0.2,
        credential_key_id=source.choice([1, 1, 2]) if key else None,
        provisioned_by_key_id=key,
        provisioned_at=registered(source.randrange(DEVICES)) if key else None,
    )


@pytest.fixture
async def filled(stack: Stack) -> Filled:
    for fleet in FLEETS[1:]:
        await stack.create_fleet(fleet)
    brokers = [stack.default_broker_id, await stack.create_broker("second")]
    pools = [make_pool(stack, *brokers, name=name) for name in ("one", "other")]
    keys = [
        str(
            stack.database.execute(
                "INSERT INTO provisioning_keys (key_hash, fleet_id) VALUES (%s::text::bytea, %s)"
                " RETURNING id",
                fleet,
                fleet,
            )[0][0]
        )
        for fleet in FLEETS
    ]
    source = chance(7)
    devices = [made(source, number, brokers, pools, keys) for number in range(DEVICES)]
    with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
        connection.cursor().executemany(MAKE, [device.row for device in devices])
    return Filled(stack, devices, brokers, pools, keys)


def actor_within(fleets: frozenset[str] | None) -> Actor:
    return Actor("v", Access.VIEWER, fleets=fleets)


async def ask(stack: Stack, method: str, request: Any, actor: Actor) -> Any:
    stub = devices_pb2_grpc.DeviceServiceStub
    return await stack.registry.ask(stub, method, request, actor=actor)


async def listed(stack: Stack, wanted: jobs_pb2.DeviceFilter, actor: Actor, size: int) -> list[Any]:
    """The devices on all pages, in order."""
    found: list[Any] = []
    cursor = ""
    for _ in range(10 * DEVICES):
        request = devices_pb2.ListDevicesRequest(page_size=size, cursor=cursor, filter=wanted)
        answer = await ask(stack, "ListDevices", request, actor)
        assert len(answer.devices) <= size
        found += answer.devices
        cursor = answer.next_cursor
        if not cursor:
            return found
    raise AssertionError("the list has no end")


async def in_a_job(stack: Stack, wanted: jobs_pb2.DeviceFilter) -> int:
    """How many devices a job with this filter is for."""
    stub = jobs_pb2_grpc.JobServiceStub
    request = jobs_pb2.CreateJobRequest(kind="assign", filter=wanted)
    job = (await stack.registry.ask(stub, "CreateJob", request)).job
    assert conditions_of(job.filter) == conditions_of(wanted)
    checked = await stack.registry.ask(stub, "CheckJob", jobs_pb2.CheckJobRequest(id=job.id))
    return sum(checked.outcomes.values())


@pytest.fixture(params=["large steps", "small steps"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows a request reads: with few, pages are short, and indexes do not suffice."""
    if request.param == "small steps":
        monkeypatch.setattr(filter_store, "STEPS", ((3, 2), (9, 5)))
        monkeypatch.setattr(facets, "ROWS", (35, 25))
        for module in (filter_store, drivers):
            monkeypatch.setattr(module, "MAX_POINTS", 1)


async def test_lists_counts_and_jobs_mean_what_the_model_means(filled: Filled, steps: None) -> None:
    stack = filled.stack
    loop = asyncio.get_running_loop()

    async def compare(conditions: dict[str, Any], fleets: frozenset[str] | None, size: int) -> None:
        wanted = filter_of(conditions)
        meant = {device.uuid for device in filled.devices if means(conditions, device)}
        actor = actor_within(fleets)
        shown = {
            device.uuid
            for device in filled.devices
            if device.uuid in meant and (fleets is None or device.fleet_id in fleets)
        }
        # Only short lists have pages of one device, because a page takes as long as a long one.
        found = await listed(stack, wanted, actor, max(size, len(shown) // 12))
        uuids = [device.uuid for device in found]
        assert len(set(uuids)) == len(uuids)
        assert set(uuids) == shown
        assert_ordered(conditions, found)
        counted = await ask(
            stack, "CountDevices", devices_pb2.CountDevicesRequest(filter=wanted), actor
        )
        assert counted.count <= len(shown)
        assert counted.is_capped or counted.count == len(shown)
        assert await in_a_job(stack, wanted) == len(meant)

    def draw() -> None:
        @EXAMPLES
        @given(
            filled.filters(),
            st.none() | st.sets(st.sampled_from(FLEETS), min_size=1).map(frozenset),
            st.sampled_from([1, 7, 500]),
        )
        def each(conditions: dict[str, Any], fleets: frozenset[str] | None, size: int) -> None:
            asyncio.run_coroutine_threadsafe(compare(conditions, fleets, size), loop).result(60)

        each()

    await asyncio.to_thread(draw)


def assert_ordered(conditions: Mapping[str, Any], found: Sequence[Any]) -> None:
    if "search" in conditions:
        text = conditions["search"]
        first = [device for device in found if device.uuid.startswith(text)]
        rest = found[len(first) :]
        assert list(found[: len(first)]) == sorted(first, key=lambda device: device.uuid)
        assert list(rest) == sorted(
            rest, key=lambda device: (device.fields.device_name.lower(), device.id)
        )
    elif "registered_since" in conditions or "registered_before" in conditions:
        times = [(device.provisioned_at.ToMicroseconds(), device.id) for device in found]
        assert times == sorted(times)
    elif "uuid_prefix" in conditions:
        assert [device.uuid for device in found] == sorted(device.uuid for device in found)
    else:
        assert [device.id for device in found] == sorted(device.id for device in found)


FACETS = {
    devices_pb2.DEVICE_FACET_FLEET_ID: "fleet_id",
    devices_pb2.DEVICE_FACET_DEVICE_TYPE: "device_type",
    devices_pb2.DEVICE_FACET_REGION: "region",
    devices_pb2.DEVICE_FACET_MQTT_BROKER_ID: "mqtt_broker_id",
    devices_pb2.DEVICE_FACET_TOLD_BROKER_ID: "told_broker_id",
}


async def test_facets_count_what_the_model_counts(filled: Filled, steps: None) -> None:
    source = chance(3)
    strategies: list[dict[str, Any]] = [{}, {"search": "a"}, {"search": "zzz"}]
    strategies += [
        {name: value, f"not_{other}": [excluded]}
        for name, values in filled.values.items()
        for other, others in filled.values.items()
        for value, excluded in [(source.choice(values), source.choice(others))]
    ]
    for conditions in strategies:
        for fleets in (None, frozenset({"other"}), frozenset({"other", "third"})):
            request = devices_pb2.CountDevicesRequest(filter=filter_of(conditions), facets=FACETS)
            answer = await ask(filled.stack, "CountDevices", request, actor_within(fleets))
            assert [facet.facet for facet in answer.facets] == list(FACETS)
            for facet in answer.facets:
                name = FACETS[facet.facet]
                others = {
                    condition: wanted
                    for condition, wanted in conditions.items()
                    if condition not in (name, f"not_{name}")
                }
                meant = Counter(
                    str(device.facts[name])
                    for device in filled.devices
                    if means(others, device) and (fleets is None or device.fleet_id in fleets)
                )
                for one in facet.values:
                    assert 0 < one.count <= meant[one.value], (conditions, name, one)
                    assert one.is_capped or one.count == meant[one.value]
                shown = {one.value for one in facet.values}
                assert facet.is_truncated or shown == set(meant), (conditions, name)


async def test_pages_stay_right_while_devices_come_and_go(filled: Filled, steps: None) -> None:
    """Devices that are there all the time are on exactly one page."""
    stack, source = filled.stack, chance(5)
    for conditions in ({}, {"search": "a"}, {"is_active": True}, {"not_fleet_id": ["demo"]}):
        doomed = {device.uuid for device in source.sample(filled.devices, 20)}
        kept = [
            device.uuid
            for device in filled.devices
            if means(conditions, device) and device.uuid not in doomed
        ]
        filled.devices = [device for device in filled.devices if device.uuid not in doomed]
        found: list[str] = []
        cursor = ""
        leaving = iter(doomed)
        for _ in range(10 * DEVICES):
            request = devices_pb2.ListDevicesRequest(
                page_size=3, cursor=cursor, filter=filter_of(conditions)
            )
            answer = await ask(stack, "ListDevices", request, actor_within(None))
            found += [device.uuid for device in answer.devices]
            cursor = answer.next_cursor
            if not cursor:
                break
            if (uuid := next(leaving, None)) is not None:
                stack.database.execute("DELETE FROM devices WHERE uuid = %s", uuid)
                new = dataclasses.replace(
                    made(
                        source,
                        1_000 + len(filled.devices),
                        filled.brokers,
                        filled.pools,
                        filled.keys,
                    ),
                    uuid=f"a{source.random():.12f}".replace(".", "-"),
                )
                stack.database.execute(MAKE, *new.row)
                filled.devices.append(new)
        else:
            raise AssertionError("the list has no end")
        for uuid in leaving:
            stack.database.execute("DELETE FROM devices WHERE uuid = %s", uuid)
        assert len(set(found)) == len(found)
        assert set(kept) <= set(found)


async def test_a_cursor_of_another_filter_is_refused(filled: Filled) -> None:
    first = devices_pb2.ListDevicesRequest(page_size=1, filter=filter_of({"search": "a"}))
    cursor = (await ask(filled.stack, "ListDevices", first, actor_within(None))).next_cursor
    for conditions in ({}, {"search": "b"}, {"search": "a", "is_active": True}):
        request = devices_pb2.ListDevicesRequest(cursor=cursor, filter=filter_of(conditions))
        with pytest.raises(InvalidInput, match="other conditions") as refused:
            await ask(filled.stack, "ListDevices", request, actor_within(None))
        assert refused.value.field == "cursor"


async def test_people_search_and_count_over_http(filled: Filled) -> None:
    async def get(path: str, status: int = 200) -> Any:
        response = await filled.stack.admin("GET", f"/devices{path}")
        assert response.status_code == status, response.text
        return response.json()

    def meant(conditions: Mapping[str, Any]) -> int:
        return sum(means(conditions, device) for device in filled.devices)

    for query, conditions in (
        ("search=pump%201", {"search": "pump 1"}),
        ("search=", {}),
        ("search=a%25", {"search": "a%"}),
        ("not_fleet_id=demo&not_fleet_id=other", {"not_fleet_id": ["demo", "other"]}),
        ("is_pinned=false&is_online=true", {"is_pinned": False, "is_online": True}),
        ("mqtt_broker_id=0", {"mqtt_broker_id": 0}),
        ("pool_id=0", {"pool_id": 0}),
        (f"pool_id={filled.pools[0]}", {"pool_id": filled.pools[0]}),
        (f"not_pool_id={filled.pools[0]}", {"not_pool_id": [filled.pools[0]]}),
        (
            "registered_since=2026-01-01T00:30:00Z&registered_before=2026-01-01T01:00:00%2B00:00",
            {
                "registered_since": registered(30).isoformat(),
                "registered_before": registered(60).isoformat(),
            },
        ),
        ("provisioned_by_key_id=", {"provisioned_by_key_id": ""}),
        ("not_region=&not_region=eu", {"not_region": ["", "eu"]}),
        ("not_told_broker_id=0", {"not_told_broker_id": [0]}),
    ):
        assert len((await get(f"?limit=500&{query}"))["items"]) == meant(conditions), query
        assert await get(f"/count?{query}") == {
            "count": meant(conditions),
            "is_capped": False,
            "facets": {},
        }
    counted = await get("/count?facets=fleet_id&facets=mqtt_broker_id&fleet_id=demo")
    assert counted["count"] == meant({"fleet_id": "demo"})
    fleets = {one["value"]: one["count"] for one in counted["facets"]["fleet_id"]["values"]}
    assert fleets == Counter(device.fleet_id for device in filled.devices)
    pins = {one["value"]: one["count"] for one in counted["facets"]["mqtt_broker_id"]["values"]}
    demo = [device for device in filled.devices if device.fleet_id == "demo"]
    assert pins == Counter(device.mqtt_broker_id for device in demo)
    for query, field in (
        ("is_active=maybe", "is_active"),
        ("registered_since=yesterday", "registered_since"),
        ("provisioned_by_key_id=x", "provisioned_by_key_id"),
        ("not_provisioned_by_key_id=x", "not_provisioned_by_key_id"),
        ("search=%00", "search"),
        (f"search={'x' * 256}", "search"),
        ("mqtt_broker_id=-1", "mqtt_broker_id"),
        ("pool_id=-1", "pool_id"),
        ("not_pool_id=2147483648", "not_pool_id"),
        ("not_fleet_id=a%20b", "not_fleet_id"),
        ("cursor=!", "cursor"),
    ):
        answer = await get(f"?{query}", 422)
        assert answer["field"] == field, query
    assert (await get("/count?facets=device_name", 422))["field"] == "facets"
    assert (await get("/count?facets=region&facets=region", 422))["field"] == "facets"


def hostile() -> Iterator[str]:
    yield from (
        "%",
        "_",
        "\\",
        "'",
        '"',
        "\0",
        "\u2028",
        "\ud800",
        "💥",
        "(",
        ")",
        ":x",
        "$1",
        "%s",
    )
    yield from ("9" * 40, "-1", "1e5", "NaN", "true", "[]", "{}", "null", "x" * 300)
    yield from (
        "W10=",
        "WzFd",
        "bnVsbA==",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    )


async def test_no_query_makes_a_5xx(filled: Filled) -> None:
    names = [field.name for field in jobs_pb2.DeviceFilter.DESCRIPTOR.fields]
    source = chance(11)
    values = [*hostile(), "a", "demo", "0", "1"]
    url = "/api/v1/devices"
    headers = {"Authorization": f"Bearer {filled.stack.admin_token}"}
    for number in range(400):
        chosen = source.sample([*names, "cursor", "limit", "facets"], source.randint(1, 3))
        query = "&".join(f"{name}={quoted(source.choice(values))}" for name in chosen)
        path = source.choice(["", "/count"])
        response = await filled.stack.http.get(f"{url}{path}?{query}", headers=headers)
        assert response.status_code < 500, (number, path, query, response.text)


def quoted(value: str) -> str:
    return "".join(f"%{byte:02X}" for byte in value.encode("utf-8", "surrogatepass"))


async def test_a_restricted_cursor_reveals_nothing_and_is_of_its_token(filled: Filled) -> None:
    """A page of a restricted token may end at a device of another fleet."""
    token = actor_within(frozenset({"third"}))
    first = devices_pb2.ListDevicesRequest(page_size=1, filter=filter_of({"search": "a"}))
    answer = await ask(filled.stack, "ListDevices", first, token)
    again = await ask(filled.stack, "ListDevices", first, token)
    assert answer.next_cursor
    assert answer.next_cursor != again.next_cursor
    for fleets in (None, frozenset({"other"}), frozenset({"other", "third"})):
        request = devices_pb2.ListDevicesRequest(
            cursor=answer.next_cursor, filter=filter_of({"search": "a"})
        )
        with pytest.raises(InvalidInput) as refused:
            await ask(filled.stack, "ListDevices", request, actor_within(fleets))
        assert refused.value.field == "cursor"
    for length in range(0, len(answer.next_cursor), 4):
        forged = devices_pb2.ListDevicesRequest(
            cursor=answer.next_cursor[: length or 1], filter=filter_of({"search": "a"})
        )
        with pytest.raises(InvalidInput):
            await ask(filled.stack, "ListDevices", forged, token)
