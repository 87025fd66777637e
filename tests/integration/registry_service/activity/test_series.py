"""Registrations and refusals over time: counted by services and gateways, read over HTTP."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mooring.registry.v1 import registration_pb2, tokens_pb2

import chassis.database
import gateway.__main__
from chassis.database import engine_of, pool_of
from gateway import refusal_counts
from registry_service.activity import recording
from registry_service.activity.series import store as series
from registry_service.activity.series.counts import ALL_FLEETS, Counts
from registry_service.activity.series.latency import BUCKETS
from registry_service.activity.series.ranges import HOUR_S, MINUTE_S, range_of
from registry_service.activity.series.store import SeriesStore
from registry_service.activity.timeline.events import REGISTRATION_REFUSED
from tests.proxy import proxied
from tests.stack import PATIENCE_S, Database, Stack

POLL_S = 0.02
EXAMPLES = settings(
    max_examples=15,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
# By the registry, and by the gateway.
REFUSED_ONCE = (
    *("PROVISIONING_KEY_UNKNOWN", "INVALID_INPUT"),
    *("UNAUTHENTICATED", "METHOD_NOT_ALLOWED", "MALFORMED_REQUEST"),
    *("BODY_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"),
)
BEGAN = datetime(2026, 3, 1, 10, 58, tzinfo=UTC)
NOTED = st.lists(
    st.tuples(
        st.integers(0, 299),  # seconds since `BEGAN`, over the end of an hour
        st.sampled_from(["a", "b", ""]),
        st.sampled_from(["new", "known", "DEVICE_TAKEN", "DEVICE_DISABLED"]),
        st.integers(1, 1_000_000),
        st.sampled_from([0.0005, 0.05, 3.0, 60.0]),
        st.integers(0, 1),  # the replica
    ),
    max_size=30,
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are written at once, so that a test does not wait for seconds."""
    monkeypatch.setattr(recording, "COUNTS_EVERY_S", 0.05)
    monkeypatch.setattr(refusal_counts, "SEND_EVERY_S", 0.05)


async def shown(stack: Stack, token: str = "", **params: str) -> dict[str, Any]:
    answer = await stack.http.get(
        "/api/v1/registrations/series",
        params=params,
        headers={"Authorization": f"Bearer {token or stack.admin_token}"},
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def summed(found: Mapping[str, Any]) -> Counter[str]:
    """What an answer counts in all its points; refusals by reason are the same in sum."""
    totals: Counter[str] = Counter()
    for point in found["points"]:
        for name in ("new_devices", "known_devices", "refused"):
            totals[name] += point[name]
        has_registrations = point["new_devices"] + point["known_devices"] > 0
        assert (point["latency"]["p50_s"] is not None) == has_registrations
    reasons = Counter({one["reason"]: one["count"] for one in found["refusals"]})
    assert reasons.total() == totals["refused"]
    return +totals + reasons


async def until_counted(
    stack: Stack, expected: Mapping[str, int], token: str = "", **params: str
) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while summed(found := await shown(stack, token, **params)) != expected:
            await asyncio.sleep(POLL_S)
    return found


async def token_of(stack: Stack, *fleets: str) -> str:
    request = tokens_pb2.CreateTokenRequest(
        name="restricted", role=tokens_pb2.ROLE_VIEWER, fleets=tokens_pb2.TokenFleets(ids=fleets)
    )
    return str((await stack.registry.tokens("CreateToken", request)).secret)


async def test_what_devices_do_is_counted_in_all_and_by_fleet(stack: Stack) -> None:
    await stack.create_fleet("other")
    other = await stack.create_key(fleet_id="other")
    for uuid in ("one", "two", "three"):
        assert (await stack.register(uuid)).status_code == 201
    assert (await stack.register("one")).status_code == 200
    assert (await stack.register("four", key=other)).status_code == 201
    # The fleet of the key counts, also if the device is another fleet's.
    for key in (other, stack.provisioning_key):
        taken = await stack.register("one", key=key, deviceApiKey="another-api-key")
        assert taken.status_code == 409
    assert (await stack.connection("one", "not-its-api-key")).status_code == 401
    # Nothing says whose these are.
    assert (await stack.register("five", key="mpk_" + "x" * 43)).status_code == 401
    assert (await stack.connection("nobody")).status_code == 401
    assert (await stack.register("no spaces")).status_code == 422
    # The gateway refuses these, and the registry does not see them.
    assert (await stack.http.post("/api/v1/device/register", content=b"{")).status_code == 401
    bearer = {"Authorization": f"Bearer {stack.provisioning_key}"}
    register = "/api/v1/device/register"
    assert (await stack.http.post(register, content=b"{", headers=bearer)).status_code == 415
    assert (await stack.http.get(register)).status_code == 405
    json = {**bearer, "Content-Type": "application/json"}
    large = b"x" * 70_000
    assert (await stack.http.post(register, content=b"{", headers=json)).status_code == 400
    assert (await stack.http.post(register, content=large, headers=json)).status_code == 413

    of_demo = {"new_devices": 3, "known_devices": 1, "refused": 2, "DEVICE_TAKEN": 1}
    of_demo |= {"DEVICE_UNAUTHENTICATED": 1}
    of_other = {"new_devices": 1, "refused": 1, "DEVICE_TAKEN": 1}
    of_all = {
        "new_devices": 4,
        "known_devices": 1,
        "refused": 11,
        "DEVICE_TAKEN": 2,
        "DEVICE_UNAUTHENTICATED": 2,
        **dict.fromkeys(REFUSED_ONCE, 1),
    }
    for step in ("minute", "hour"):
        await until_counted(stack, of_all, step=step)
        await until_counted(stack, of_demo, step=step, fleet_id="demo")
        restricted = await token_of(stack, "demo")
        await until_counted(stack, of_demo, restricted, step=step)
        await until_counted(stack, of_demo, restricted, step=step, fleet_id="demo")
        for fleet_id in ("other", "no-such-fleet"):
            assert not summed(await shown(stack, restricted, step=step, fleet_id=fleet_id))
        both = await token_of(stack, "demo", "other")
        await until_counted(stack, Counter(of_demo) + Counter(of_other), both, step=step)
    found = await shown(stack)
    assert 0 < found["latency"]["p50_s"] <= found["latency"]["p99_s"] < 20
    assert found["refusals"][0]["count"] == 2
    assert len(found["points"]) == 60
    assert len((await shown(stack, step="hour"))["points"]) == 24


async def test_a_rate_limit_and_a_registry_that_is_away_are_counted(
    stack: Stack, database: Database
) -> None:
    config = stack.gateway_config(limit_per_address="2/hour")
    async with gateway.__main__.running(config) as url:
        for _ in range(5):
            await stack.http.post(f"{url}/api/v1/device/register", json={})
        await until_counted(stack, {"refused": 5, "UNAUTHENTICATED": 2, "RATE_LIMITED": 3})
    config = stack.gateway_config(registry_service_address="127.0.0.1:1", request_timeout_s=0.5)
    async with gateway.__main__.running(config) as url:
        answer = await stack.http.get(
            f"{url}/api/v1/device/one/mqtt", headers={"Authorization": "Bearer something"}
        )
        assert answer.status_code == 503
    # Nobody is there to count it; it does not keep the gateway from its end.


async def test_replicas_add_up(stack: Stack) -> None:
    other = await stack.another_registry()
    for n in range(20):
        request = registration_pb2.RegisterDevicesRequest(
            registrations=[
                registration_pb2.Registration(
                    provisioning_key=stack.provisioning_key,
                    uuid=f"device-{n}",
                    device_name="d",
                    device_type="t",
                    device_api_key="test-api-key",
                )
            ]
        )
        await (other if n % 2 else stack.registry).registration("RegisterDevices", request)
    await until_counted(stack, {"new_devices": 20})


async def test_counts_and_events_wait_for_a_database_that_is_away(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await stack.register("one")).status_code == 201
    await until_counted(stack, {"new_devices": 1})
    async with contextlib.AsyncExitStack() as exits:
        through = proxied(stack.database.url("mooring_registry"))
        proxy, url = await exits.enter_async_context(through)
        pool = await exits.enter_async_context(pool_of(url))
        activity = recording.Activity(pool)
        proxy.lose()
        with monkeypatch.context() as hasty:
            # Only while nothing gets through: a write that is given up may have taken effect.
            hasty.setattr(chassis.database, "CLIENT_TIMEOUT_S", 0.3)
            for _ in range(3):
                activity.registered({("demo", True): 2}, 0.1)
                activity.refused(REGISTRATION_REFUSED, "DEVICE_TAKEN", "demo", uuid="one")
                await activity.write_counts()
                assert not await recording.write_events(pool, activity.events)
        # A minute may have ended meanwhile.
        assert len(activity.counts) in (2, 4)
        assert len(activity.events) == 1
        proxy.restore()
        async with asyncio.timeout(PATIENCE_S):
            while len(activity.counts) or len(activity.events):
                await activity.close()
    expected = {"new_devices": 7, "refused": 3, "DEVICE_TAKEN": 3}
    for params in ({}, {"fleet_id": "demo"}):
        await until_counted(stack, expected, **params)
    events = "SELECT kind, sum(count)::int FROM device_events GROUP BY kind"
    assert stack.database.execute(events) == [("registration_refused", 3)]


@pytest.fixture
async def kept(database: Database) -> AsyncIterator[tuple[Any, SeriesStore]]:
    """A pool that writes, and a store that reads."""
    engine = engine_of(database.url("mooring_registry"))
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(engine.dispose)
        pool = await exits.enter_async_context(pool_of(database.url("mooring_registry")))
        yield pool, SeriesStore(engine)


async def test_whatever_was_counted_is_read(
    kept: tuple[Any, SeriesStore], database: Database
) -> None:
    """In each minute and hour, for each fleet and for several, however it was divided."""
    pool, store = kept

    async def check(noted: list[tuple[int, str, str, int, float, int]]) -> None:
        database.execute("DELETE FROM registration_counts")
        database.execute("DELETE FROM refusal_counts")
        replicas = Counts(), Counts()
        for second, fleet_id, what, count, took_s, replica in noted:
            now = BEGAN.timestamp() + second
            if what in ("new", "known"):
                replicas[replica].registered({(fleet_id, what == "new"): count}, took_s, now)
            else:
                replicas[replica].refused(what, fleet_id, now, count)
            if count % 3 == 0 and (taken := replicas[replica].take()):
                await series.add(pool, taken)
        rest = [taken for counts in replicas if (taken := counts.take())]
        await asyncio.gather(*(series.add(pool, taken) for taken in rest))
        end_s = int(BEGAN.timestamp()) + 300
        for row_s in (MINUTE_S, HOUR_S):
            for fleets, since_s in itertools.product(
                [(ALL_FLEETS,), ("a",), ("a", "b"), ()], [end_s - 180, end_s - 300, end_s - 86_400]
            ):
                span = range_of(row_s, since_s, end_s, end_s, len(fleets))
                points, reasons = await store.read(span, fleets)
                begin_s = span.rows.begin_s
                expected: Counter[Any] = Counter()
                by_reason: Counter[str] = Counter()
                for second, fleet_id, what, count, _, _ in noted:
                    at_s = int(BEGAN.timestamp()) + second
                    if at_s < begin_s or not (ALL_FLEETS in fleets or fleet_id in fleets):
                        continue
                    named = {"new": "new_devices", "known": "known_devices"}.get(what, "refused")
                    expected[at_s // span.point_s * span.point_s, named] += count
                    if named == "refused":
                        by_reason[what] += count
                found = Counter(
                    {
                        (at_s, name): getattr(row, name)
                        for at_s, row in points.items()
                        for name in ("new_devices", "known_devices", "refused")
                    }
                )
                assert +found == expected, (row_s, fleets)
                assert points.keys() <= {*span.points}
                for row in points.values():
                    assert len(row.latency) == BUCKETS
                    assert sum(row.latency) == row.new_devices + row.known_devices
                assert dict(reasons) == by_reason
                assert [*dict(reasons).values()] == sorted(by_reason.values(), reverse=True)

    loop = asyncio.get_running_loop()

    @EXAMPLES
    @given(NOTED)
    def run(noted: list[tuple[int, str, str, int, float, int]]) -> None:
        asyncio.run_coroutine_threadsafe(check(noted), loop).result(60)

    await asyncio.to_thread(run)


async def test_old_buckets_are_deleted(kept: tuple[Any, SeriesStore], database: Database) -> None:
    pool, store = kept
    now = datetime.now(UTC)
    counts = Counts()
    for days in (0, 1, 3, 89, 91):
        at = (now - timedelta(days=days)).timestamp()
        counts.registered({("a", True): 1}, 0.1, at)
        counts.refused("DEVICE_TAKEN", "a", at)
    await series.add(pool, counts.take())
    await store.forget()
    for table in ("registration_counts", "refusal_counts"):
        kept_rows = database.execute(
            f"SELECT step, fleet_id, count(*) FROM {table} GROUP BY 1, 2 ORDER BY 1, 2"
        )
        assert kept_rows == [
            *(("day", "", 4), ("day", "a", 4)),
            *(("hour", "", 4), ("hour", "a", 4)),
            *(("minute", "", 2), ("minute", "a", 2)),
        ]


async def test_the_counts_of_a_fleet_go_with_it(stack: Stack) -> None:
    """A later fleet of the same name may be another customer's."""
    await stack.create_fleet("gone")
    key = await stack.create_key(fleet_id="gone")
    await stack.register("one", key=key)
    await until_counted(stack, {"new_devices": 1}, fleet_id="gone")
    answer = await stack.admin("DELETE", "/fleets/gone?with_devices=true")
    assert answer.status_code in (200, 204), answer.text
    await stack.create_fleet("gone")
    for step in ("minute", "hour"):
        assert not summed(await shown(stack, step=step, fleet_id="gone"))
        assert summed(await shown(stack, step=step)) == {"new_devices": 1}


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"since": "yesterday"}, "since"),
        ({"until": "2026-01-01T00:00:00"}, "until"),
        ({"step": "second"}, "step"),
        ({"fleet_id": "no spaces"}, "fleet_id"),
    ],
)
async def test_a_parameter_that_makes_no_sense_is_named(
    stack: Stack, params: dict[str, str], field: str
) -> None:
    answer = await stack.admin("GET", "/registrations/series", params=params)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


async def test_any_range_has_an_answer_of_bounded_length(stack: Stack) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    first, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
    hour_ago = (now - timedelta(hours=1)).isoformat()
    for since, until, step, fewest, most in (
        (first, first, "minute", 0, 0),
        (last, first, "hour", 0, 0),
        (first, last, "minute", 1, 300),
        (first, last, "hour", 1, 300),
        (last, last, "minute", 1, 1),
        (first, now.isoformat(), "minute", 90, 91),
        (first, now.isoformat(), "hour", 90, 91),
        (hour_ago, now.isoformat(), "minute", 60, 61),
        (hour_ago, hour_ago, "minute", 0, 1),
    ):
        found = await shown(stack, since=since, until=until, step=step)
        points = [datetime.fromisoformat(point["at"]) for point in found["points"]]
        assert fewest <= len(points) <= most, (since, until, step)
        for one, following in itertools.pairwise(points):
            assert following - one == timedelta(seconds=found["point_s"])
        if points:
            assert points[0] == datetime.fromisoformat(found["since"])
