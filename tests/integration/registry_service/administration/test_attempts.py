"""Guessing API tokens: how many wrong ones are checked, and that other clients are served."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from mooring.registry.v1 import tokens_pb2 as pb
from prometheus_client import REGISTRY

import gateway.__main__
from chassis.errors import Unavailable
from gateway.limits import Limit
from registry_service.administration.tokens.token_cache import TokenCache
from tests.integration.gateway.test_gateway_http import assert_problem
from tests.stack import PATIENCE_S, Stack

SERVICE = "/mooring.registry.v1.TokenService"


def calls(method: str, code: str) -> float:
    labels = {"method": f"{SERVICE}/{method}", "code": code}
    return REGISTRY.get_sample_value("mooring_rpc_seconds_count", labels) or 0.0


def guess(number: int) -> str:
    return f"mat_{number:043}"[::-1].replace("_tam", "")


async def tried(http: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await http.get("/api/v1/brokers", headers={"Authorization": f"Bearer {token}"})


@contextlib.asynccontextmanager
async def at(address: str, url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that connects from `address`, another loopback address."""
    transport = httpx2.AsyncHTTPTransport(local_address=address)
    async with httpx2.AsyncClient(transport=transport, base_url=url, timeout=PATIENCE_S) as http:
        yield http


@contextlib.asynccontextmanager
async def another_gateway(stack: Stack, **limits: Any) -> AsyncIterator[str]:
    async with gateway.__main__.running(stack.gateway_config(**limits)) as url:
        yield url


async def created(stack: Stack) -> pb.CreateTokenResponse:
    request = pb.CreateTokenRequest(name="t", role=pb.ROLE_VIEWER)
    answer: pb.CreateTokenResponse = await stack.registry.tokens("CreateToken", request)
    return answer


async def test_a_flood_of_guesses_is_refused_at_the_gateway(stack: Stack) -> None:
    never_seen = (await created(stack)).secret
    assert (await stack.admin("GET", "/brokers")).status_code == 200
    wrong, looked = calls("AuthenticateToken", "UNAUTHENTICATED"), calls("ListFingerprints", "OK")
    answers = await asyncio.gather(*(tried(stack.http, guess(n)) for n in range(60)))
    assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 50
    assert calls("AuthenticateToken", "UNAUTHENTICATED") - wrong == 10
    assert calls("ListFingerprints", "OK") - looked <= 2
    for answer in answers:
        if answer.status_code == 429:
            assert_problem(answer, 429, "RATE_LIMITED")
            assert int(answer.headers["Retry-After"]) >= 1

    # From the same address, valid tokens are accepted: one known here, one new to the gateway, and
    # one created just now.
    for token in (stack.admin_token, never_seen):
        assert (await tried(stack.http, token)).status_code == 200
    new = await created(stack)
    async with asyncio.timeout(5):
        while (await tried(stack.http, new.secret)).status_code != 200:
            await asyncio.sleep(0.05)
    # A revoked token counts as a wrong one, and soon the registry is not asked about it any more.
    await stack.registry.tokens("RevokeToken", pb.RevokeTokenRequest(id=new.token.id))
    assert_problem(await tried(stack.http, new.secret), 401, "TOKEN_UNKNOWN")
    asked = calls("AuthenticateToken", "UNAUTHENTICATED")
    for _ in range(5):
        assert_problem(await tried(stack.http, new.secret), 429, "RATE_LIMITED")
    assert calls("AuthenticateToken", "UNAUTHENTICATED") == asked
    # Clients at other addresses are not affected.
    async with at("127.0.0.2", stack.gateway_url) as elsewhere:
        assert_problem(await tried(elsewhere, guess(99)), 401, "TOKEN_UNKNOWN")
        # Devices are not affected.
        assert (await stack.register("d")).status_code == 201


async def test_guesses_with_one_prefix_are_limited_over_all_addresses(stack: Stack) -> None:
    async with another_gateway(stack, limit_failed_per_prefix=Limit(5, 60)) as url:
        shared = stack.admin_token[:20]
        wrong = calls("AuthenticateToken", "UNAUTHENTICATED")
        statuses = []
        for n in range(12):
            async with at(f"127.0.1.{n + 1}", url) as http:
                statuses.append((await tried(http, shared + guess(n)[:27])).status_code)
        assert statuses == [401] * 5 + [429] * 7
        assert calls("AuthenticateToken", "UNAUTHENTICATED") - wrong == 5
        async with at("127.0.1.50", url) as http:
            # The whole token is accepted, and another prefix is not limited.
            assert (await tried(http, stack.admin_token)).status_code == 200
            assert (await tried(http, guess(1))).status_code == 401


async def test_only_failures_count(stack: Stack) -> None:
    tokens = [(await created(stack)).secret for _ in range(15)]
    answers = await asyncio.gather(*(tried(stack.http, token) for token in tokens * 4))
    assert {answer.status_code for answer in answers} == {200}


async def test_valid_tokens_do_not_count_while_fingerprints_are_unavailable(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(TokenCache, "valid_hashes", away)
    tokens = [(await created(stack)).secret for _ in range(15)]
    assert [(await tried(stack.http, token)).status_code for token in tokens] == [200] * 15
    # Wrong tokens still have the whole allowance.
    statuses = [(await tried(stack.http, guess(n))).status_code for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2


async def test_a_limit_may_be_off(stack: Stack) -> None:
    async with (
        another_gateway(stack, limit_failed_per_address=None, limit_failed_per_prefix=None) as url,
        httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S) as http,
    ):
        answers = await asyncio.gather(*(tried(http, guess(n)) for n in range(30)))
        assert {answer.status_code for answer in answers} == {401}


async def test_an_unavailable_registry_does_not_count_as_a_wrong_token(stack: Stack) -> None:
    config = {"registry_service_address": "127.0.0.1:1", "request_timeout_s": 1}
    async with (
        another_gateway(stack, **config) as url,
        httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S) as http,
    ):
        answers = await asyncio.gather(*(tried(http, stack.admin_token) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {503}
        with pytest.raises(KeyError):
            answers[0].headers["WWW-Authenticate"]
