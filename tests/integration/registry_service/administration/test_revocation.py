"""Every replica refuses a revoked token within a second, also after connections were lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import Any

import psycopg
import pytest
from mooring.registry.v1 import tokens_pb2 as pb

from chassis.errors import Unauthenticated, Unavailable
from tests.proxy import Proxy, proxied
from tests.stack import Peer, Stack

WITHIN_S = 1.0
LISTENERS = (
    " FROM pg_stat_activity WHERE datname = %s"
    " AND application_name = 'mooring listener' AND usename = 'mooring_registry'"
)
CUT = "SELECT count(pg_terminate_backend(pid))" + LISTENERS


async def created(peer: Peer) -> tuple[str, str]:
    """A token's id, and the token."""
    request = pb.CreateTokenRequest(name="t", role=pb.ROLE_VIEWER)
    answer = await peer.tokens("CreateToken", request)
    return answer.token.id, answer.secret


async def by_api(stack: Stack, token_id: str) -> None:
    await stack.registry.tokens("RevokeToken", pb.RevokeTokenRequest(id=token_id))


async def by_sql(stack: Stack, token_id: str) -> None:
    stack.database.execute("UPDATE api_tokens SET is_active = false WHERE id = %s", token_id)


async def deleted(stack: Stack, token_id: str) -> None:
    stack.database.execute("DELETE FROM api_tokens WHERE id = %s", token_id)


Revoke = Callable[[Stack, str], Awaitable[None]]


async def authenticated(peer: Peer, secret: str) -> str:
    request = pb.AuthenticateTokenRequest(secret=secret)
    return str((await peer.tokens("AuthenticateToken", request)).token.id)


async def listening(connection: psycopg.Connection[Any], database: str, count: int) -> None:
    """Returns when `count` connections listen."""
    async with asyncio.timeout(20):
        while connection.execute("SELECT count(*)" + LISTENERS, [database]).fetchone() != (count,):
            await asyncio.sleep(0.02)


async def refused_s(peer: Peer, secret: str, since: float) -> float:
    """How long after `since` the token was accepted for the last time, in seconds."""
    last = since
    async with asyncio.timeout(20):
        while True:
            try:
                await authenticated(peer, secret)
            except Unauthenticated:
                return last - since
            except Unavailable:
                continue
            last = monotonic()


@contextlib.asynccontextmanager
async def behind_a_proxy(stack: Stack) -> AsyncIterator[tuple[Proxy, Peer]]:
    async with proxied(stack.database.url("mooring_registry")) as (proxy, url):
        yield proxy, await stack.another_registry(database_url=url)


@pytest.mark.parametrize("revoke", [by_api, by_sql, deleted])
async def test_both_replicas_refuse_a_revoked_token(stack: Stack, revoke: Revoke) -> None:
    other = await stack.another_registry()
    for _ in range(3):
        token_id, secret = await created(stack.registry)
        for peer in (stack.registry, other):
            assert await authenticated(peer, secret) == token_id
        await revoke(stack, token_id)
        since = monotonic()
        took_s = await asyncio.gather(
            *(refused_s(peer, secret, since) for peer in (stack.registry, other))
        )
        assert max(took_s) <= WITHIN_S, took_s


async def test_a_token_works_at_the_other_replica_at_once(stack: Stack) -> None:
    other = await stack.another_registry()
    for _ in range(20):
        token_id, secret = await created(stack.registry)
        assert await authenticated(other, secret) == token_id


async def test_a_cut_connection_is_replaced(stack: Stack) -> None:
    other = await stack.another_registry()
    superuser = stack.database.server.superuser_url()
    for _ in range(3):
        token_id, secret = await created(stack.registry)
        with psycopg.connect(superuser, autocommit=True) as connection:
            # Each replica has one for tokens and one for `AwaitHeld`.
            await listening(connection, stack.database.name, 4)
            assert connection.execute(CUT, [stack.database.name]).fetchone() == (4,)
        await by_sql(stack, token_id)
        since = monotonic()
        for peer in (stack.registry, other):
            assert await refused_s(peer, secret, since) <= WITHIN_S
        # The replicas listen again.
        token_id, secret = await created(other)
        assert await authenticated(stack.registry, secret) == token_id


async def test_a_replica_that_lost_its_connection_accepts_no_cached_token(stack: Stack) -> None:
    async with behind_a_proxy(stack) as (proxy, peer):
        token_id, secret = await created(stack.registry)
        _, good = await created(stack.registry)
        assert await authenticated(peer, secret) == token_id
        proxy.lose()
        await by_sql(stack, token_id)
        lost_at = monotonic()
        asking = asyncio.create_task(refused_s(peer, secret, lost_at))
        while monotonic() - lost_at < 2:
            await asyncio.sleep(0.05)
        proxy.restore()
        restored_at = monotonic()
        # A good token is soon accepted again, and was never answered as unknown.
        await authenticated(peer, good)
        assert monotonic() - restored_at <= WITHIN_S
        assert await asking <= WITHIN_S


async def test_without_a_database_no_token_is_answered_as_unknown(stack: Stack) -> None:
    peer = await stack.another_registry()
    _, secret = await created(stack.registry)
    with psycopg.connect(stack.database.server.superuser_url(), autocommit=True) as connection:
        try:
            connection.execute("ALTER ROLE mooring_registry CONNECTION LIMIT 0")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'mooring_registry'"
            )
            # The registry notices in less than a second.
            async with asyncio.timeout(5):
                with contextlib.suppress(Unavailable):
                    while True:
                        await authenticated(peer, secret)
            for shown in (secret, "mat_wrong"):
                with pytest.raises(Unavailable):
                    await authenticated(peer, shown)
            answer = await stack.admin("GET", "/tokens")
            assert answer.status_code == 503
            assert "Retry-After" in answer.headers
        finally:
            connection.execute("ALTER ROLE mooring_registry CONNECTION LIMIT -1")
    async with asyncio.timeout(5):
        while (await stack.admin("GET", "/tokens")).status_code != 200:
            await asyncio.sleep(0.02)
    # With the database, the wrong token is refused.
    assert await refused_s(peer, "mat_wrong", monotonic()) == 0
