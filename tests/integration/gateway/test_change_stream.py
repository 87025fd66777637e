"""The stream of changes: who gets which kinds, and how it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from mooring.registry.v1 import tokens_pb2

import gateway.__main__
import registry_service.__main__
from chassis.trust import Access, WithinFleets, access_of
from gateway import changes, streams
from gateway.changes import KINDS, POLICIES, QUESTIONS, SUBSCRIBERS
from gateway.subscription import Subscription
from tests.events import Event, followed
from tests.integration.chassis.test_policies import routes_served
from tests.served import NO_TLS
from tests.stack import Stack

PATIENCE_S = 20.0
# Timers of the loop may be early by its resolution, for each event.
CLOCK_S = 0.05
# Kinds that are read with the list of another.
LISTED = {"registrations": "list_devices", "audit": "list_audit_log", "rollouts": "get_rollout"}
LISTED |= {"enforcement": "get_enforcement", "series": "get_registration_series"}
# The explanation of a device's broker shows the states of brokers.
LISTED |= {"timelines": "get_device_timeline", "broker_states": "explain_device"}


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[httpx2.AsyncClient]:
    """A client whose streams do not end, unlike those of the stack's."""
    async with httpx2.AsyncClient(
        base_url=stack.gateway_url, timeout=PATIENCE_S, verify=NO_TLS
    ) as found:
        yield found


async def token_of(stack: Stack, role: Any, *fleets: str) -> tuple[str, str]:
    """The secret and the id of a new token."""
    made = await stack.registry.tokens(
        "CreateToken",
        tokens_pb2.CreateTokenRequest(
            name="follower",
            role=role,
            fleets=tokens_pb2.TokenFleets(ids=fleets) if fleets else None,
        ),
    )
    return made.secret, made.token.id


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def questions() -> float:
    return sum(
        sample.value
        for metric in QUESTIONS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


def subscribers() -> float:
    return float(SUBSCRIBERS._value.get())


def test_each_kind_is_for_those_who_may_list_it() -> None:
    stated = {handler.handler_name: handler.opt["access"] for handler in routes_served()}
    for kind, policy in POLICIES.items():
        assert stated[LISTED.get(kind, f"list_{kind}")] == policy, kind


async def test_an_event_names_what_changed(stack: Stack, client: httpx2.AsyncClient) -> None:
    async with followed(client, stack.admin_token) as events:
        assert events.response.status_code == 200
        assert events.response.headers["content-type"].startswith("text/event-stream")
        assert events.response.headers["x-accel-buffering"] == "no"
        assert events.response.headers["cache-control"] == "no-store"
        first = await events.next()
        assert isinstance(first, Event)
        assert (first.name, first.kinds) == ("changes", set(KINDS))
        assert (await stack.register("one")).status_code == 201
        found = await events.until("registrations")
        assert {"devices", "provisioning_keys"} <= found.kinds
        assert "one" not in str(found)
        created = await stack.admin("POST", "/fleets", json={"id": "new", "name": "n"})
        assert created.status_code == 201
        seen: set[str] = set()
        while not {"fleets", "rollouts", "audit"} <= seen:
            event = await events.next()
            assert event is not None
            seen |= event.kinds


async def test_a_client_that_comes_back_learns_what_it_missed(
    stack: Stack, client: httpx2.AsyncClient
) -> None:
    async with followed(client, stack.admin_token) as watching:
        async with followed(client, stack.admin_token) as events:
            assert await events.next()
            created = await stack.admin("POST", "/fleets", json={"id": "seen", "name": "n"})
            assert created.status_code == 201
            last = await events.until("fleets")
        await until(lambda: subscribers() == 1)
        assert (await stack.register("one")).status_code == 201
        await watching.until("registrations")
        async with followed(client, stack.admin_token, last_event_id=last.id) as events:
            missed = await events.until("registrations")
            assert missed.kinds < KINDS
            assert "brokers" not in missed.kinds
        for strange in ("x.1", f"{last.id}999", last.id.partition(".")[0], "1" * 400, "a b.1"):
            async with followed(client, stack.admin_token, last_event_id=strange) as events:
                everything = await events.next()
                assert everything is not None
                assert everything.kinds == KINDS


async def test_a_restricted_token_does_not_learn_when_something_changes(
    stack: Stack, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "RESTRICTED_S", 0.3)
    secret, _ = await token_of(stack, tokens_pb2.ROLE_OPERATOR, "demo")
    loop = asyncio.get_running_loop()
    async with followed(client, secret) as events, followed(client, stack.admin_token) as other:
        kinds = []
        begun_at = loop.time()
        # Nothing changes until the third event, and much from then on.
        for number in range(6):
            found = await events.next()
            assert found is not None
            kinds.append(found.kinds)
            # A position would tell how much has changed.
            assert found.id == ""
            if number >= 2:
                await stack.create_fleet(f"another-{number}")
        await other.until("fleets")
        assert len({frozenset(one) for one in kinds}) == 1
        assert loop.time() - begun_at >= 5 * 0.3 - CLOCK_S


@pytest.mark.parametrize(
    ("role", "fleets"),
    [(Access.VIEWER, ()), (Access.OPERATOR, ("demo",)), (Access.VIEWER, ("demo",))],
)
async def test_a_token_gets_the_kinds_that_it_may_read(
    stack: Stack,
    client: httpx2.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    role: Access,
    fleets: tuple[str, ...],
) -> None:
    monkeypatch.setattr(changes, "RESTRICTED_S", 0.3)
    allowed = {
        kind
        for kind, policy in POLICIES.items()
        if role >= access_of(policy) and (not fleets or isinstance(policy, WithinFleets))
    }
    assert allowed < KINDS
    roles = {Access.VIEWER: tokens_pb2.ROLE_VIEWER, Access.OPERATOR: tokens_pb2.ROLE_OPERATOR}
    secret, _ = await token_of(stack, roles[role], *fleets)
    async with followed(client, secret) as events:
        first = await events.next()
        assert first is not None
        assert first.kinds == allowed
        # A token, an account and a line of the audit log, and then a device.
        await token_of(stack, tokens_pb2.ROLE_VIEWER)
        assert (await stack.register("one")).status_code == 201
        seen = await events.until("registrations")
        assert seen.kinds <= allowed


async def test_without_a_token_there_is_no_stream(stack: Stack, client: httpx2.AsyncClient) -> None:
    for headers in ({}, {"Authorization": f"Bearer mat_{'x' * 43}"}):
        answer = await client.get("/api/v1/changes", headers=headers)
        assert (answer.status_code, "www-authenticate" in answer.headers) == (401, True)


async def test_head_has_no_body_and_ends(stack: Stack, client: httpx2.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {stack.admin_token}"}
    answer = await client.head("/api/v1/changes", headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_fifty_streams_are_one_question(
    stack: Stack, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS_OF_A_TOKEN", 50)
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as exits:
        opened = [
            await exits.enter_async_context(followed(client, stack.admin_token)) for _ in range(50)
        ]
        await asyncio.gather(*(events.next() for events in opened))
        begun, begun_at = questions(), loop.time()
        assert (await stack.register("one")).status_code == 201
        found = await asyncio.gather(*(events.until("registrations") for events in opened))
        assert len({event.id for event in found}) == 1
        # One question is under way at a time, and each that finds something is followed by a pause.
        assert questions() - begun <= 2 + (loop.time() - begun_at) / changes.PAUSE_S
        assert subscribers() == 50
    # Without clients the gateway asks nothing: the last question ends, and no other begins.
    await until(lambda: subscribers() == 0)
    await until(lambda: not [task for task in asyncio.all_tasks() if "_keep_asking" in str(task)])


async def test_streams_of_a_token_are_bounded(
    stack: Stack, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS_OF_A_TOKEN", 2)
    monkeypatch.setattr(changes, "MAX_SUBSCRIBERS", 3)
    other, _ = await token_of(stack, tokens_pb2.ROLE_VIEWER)
    headers = {"Authorization": f"Bearer {stack.admin_token}"}
    async with contextlib.AsyncExitStack() as exits:
        for _ in range(2):
            events = await exits.enter_async_context(followed(client, stack.admin_token))
            assert await events.next()
        refused = await client.get("/api/v1/changes", headers=headers)
        assert (refused.status_code, refused.json()["reason"]) == (429, "RATE_LIMITED")
        assert "retry-after" in refused.headers
        # Another token has streams of its own, until the gateway has as many as it may have.
        third = await exits.enter_async_context(followed(client, other))
        assert await third.next()
        full = await client.get("/api/v1/changes", headers={"Authorization": f"Bearer {other}"})
        assert (full.status_code, full.json()["reason"]) == (503, "OVERLOADED")
    await until(lambda: subscribers() == 0)
    async with followed(client, stack.admin_token) as again:
        assert await again.next()


async def test_a_revoked_token_ends_its_streams(stack: Stack, client: httpx2.AsyncClient) -> None:
    secret, token_id = await token_of(stack, tokens_pb2.ROLE_VIEWER)
    async with followed(client, secret) as ending, followed(client, stack.admin_token) as other:
        assert await ending.next()
        assert await other.next()
        began = asyncio.get_running_loop().time()
        revoked = await stack.admin("DELETE", f"/tokens/{token_id}")
        assert revoked.status_code < 300, revoked.text
        await ending.end()
        assert asyncio.get_running_loop().time() - began < 5
        await other.until("tokens")


async def test_an_expired_token_ends_its_streams(
    stack: Stack, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.administration.change_stream.CHECK_S", 0.1)
    secret, token_id = await token_of(stack, tokens_pb2.ROLE_VIEWER)
    async with followed(client, secret) as events:
        assert await events.next()
        stack.database.execute(
            "UPDATE api_tokens SET expires_at = now() + interval '0.2 s' WHERE id = %s", token_id
        )
        await events.end()


async def test_nothing_is_missed_while_the_registry_is_away(
    stack: Stack, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.administration.change_stream.HEARTBEAT_S", 0.2)
    async with contextlib.AsyncExitStack() as registry:
        port = await registry.enter_async_context(
            registry_service.__main__.running(stack.registry_config())
        )
        config = stack.gateway_config(registry_service_address=f"127.0.0.1:{port}")
        async with (
            gateway.__main__.running(config) as url,
            followed(client, stack.admin_token, url=url) as events,
        ):
            assert await events.next()
            await registry.aclose()
            assert (await stack.register("meanwhile")).status_code == 201
            again = stack.registry_config(bind_port=port)
            await registry.enter_async_context(registry_service.__main__.running(again))
            found = await events.until("registrations")
            assert found.kinds < KINDS
            # Proxies had something to pass on all the time.
            assert events.comments > 0


async def test_streams_end_when_the_gateway_stops(stack: Stack, client: httpx2.AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as exits:
        async with gateway.__main__.running(stack.gateway_config(drain_s=0.2)) as url:
            opened = [
                await exits.enter_async_context(followed(client, stack.admin_token, url=url))
                for _ in range(10)
            ]
            await asyncio.gather(*(events.next() for events in opened))
            stopping_at = loop.time()
        # The grace is five seconds, and none of it was needed.
        assert loop.time() - stopping_at < 3
        await asyncio.gather(*(events.end() for events in opened))


async def test_a_client_that_does_not_read_costs_no_memory() -> None:
    """What it has not read is kept as a set of kinds."""
    subscription = Subscription(KINDS, frozenset(), "p.0")
    for number in range(10_000):
        subscription.note(frozenset({"devices", "audit"}), f"p.{number}")
    assert subscription.take() == ("p.9999", frozenset({"devices", "audit"}))
    assert subscription.take() == ("p.9999", frozenset())
