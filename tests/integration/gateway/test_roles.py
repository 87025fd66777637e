"""Every route, as every kind of caller, with a valid body: admitted or refused.

The tests walk the OpenAPI document; the routes' policies say which callers are admitted. A caller
that is refused changes nothing, whatever it names.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from mooring.registry.v1 import tokens_pb2

import gateway.__main__
from chassis.trust import Access, WithinFleets, access_of
from gateway.examples import PARAMETERS
from tests.integration.chassis.test_policies import ROLES, routes_served
from tests.integration.gateway.test_document import (
    document_of,
    furnish,
    operations_of,
    sending,
    turn_of,
)
from tests.stack import Stack
from tests.stored import Stored

# What an admitted caller may be answered: the resource may be missing, or may have changed since.
SERVED = {200, 201, 202, 204, 404, 409, 412}
# Why a token that is restricted to fleets is refused for what its body says, not for its role.
OUT_OF_REACH = {"FORBIDDEN", "FLEET_UNKNOWN", "BROKER_UNKNOWN"}
TURNED_AWAY = {"UNAUTHENTICATED", "TOKEN_UNKNOWN", "TOKEN_REVOKED", "TOKEN_EXPIRED"}


@dataclass(frozen=True)
class Caller:
    """A client with an API token, or with none."""

    name: str
    secret: str
    # None if the token is missing or not valid.
    role: Access | None
    fleets: tuple[str, ...] | None = None

    def may(self, policy: Access | WithinFleets) -> bool:
        """Whether the policy admits this caller."""
        if self.role is None or self.role < access_of(policy):
            return False
        return self.fleets is None or isinstance(policy, WithinFleets)


@dataclass(frozen=True)
class Operation:
    """An operation of the document, and what is sent to it."""

    name: str
    method: str
    path: str
    described: dict[str, Any]
    policy: Access | WithinFleets

    def names_something(self) -> bool:
        """Whether its path names a resource of the fleet `demo`."""
        names = {parameter["name"] for parameter in self.described.get("parameters", ())}
        return bool(names & {"uuid", "fleet_id", "key_id"}) and "{" in self.path

    async def sent(self, stack: Stack, url: str, caller: Caller) -> Any:
        """The answer of the gateway at `url`."""
        required = {
            parameter["name"]: PARAMETERS[parameter["name"]]
            for parameter in self.described.get("parameters", ())
            if parameter["in"] == "query" and parameter.get("required")
        }
        return await stack.http.request(
            self.method.upper(),
            url + self.path.format(**PARAMETERS),
            params=required,
            **sending(self.described, caller.secret),
        )


@pytest.fixture
async def url(stack: Stack) -> AsyncIterator[str]:
    """A gateway without limits on wrong secrets, because this test sends many."""
    config = stack.gateway_config(limit_failed_per_address="", limit_failed_per_prefix="")
    async with gateway.__main__.running(config) as found:
        yield found


@pytest.fixture
async def callers(stack: Stack) -> list[Caller]:
    async def token(role: Access, *fleets: str) -> Any:
        request = tokens_pb2.CreateTokenRequest(
            name=f"{role.name} {fleets}",
            role=ROLES[role],
            fleets=tokens_pb2.TokenFleets(ids=fleets) if fleets else None,
        )
        return await stack.registry.tokens("CreateToken", request)

    await stack.create_fleet("elsewhere")
    found = [Caller("no token", "", None), Caller("unknown token", "mat_" + "x" * 43, None)]
    revoked = await token(Access.ADMIN)
    expired = await token(Access.ADMIN)
    await stack.registry.tokens("RevokeToken", tokens_pb2.RevokeTokenRequest(id=revoked.token.id))
    stack.database.execute(
        "UPDATE api_tokens SET expires_at = now() - interval '1 s' WHERE id = %s", expired.token.id
    )
    found += [Caller("revoked", revoked.secret, None), Caller("expired", expired.secret, None)]
    for role in (Access.VIEWER, Access.OPERATOR):
        for fleets in (("elsewhere",), ("demo",)):
            made = await token(role, *fleets)
            found.append(Caller(f"{role.name} of {fleets}", made.secret, role, fleets))
        found.append(Caller(role.name, (await token(role)).secret, role))
    return [*found, Caller("admin", stack.admin_token, Access.ADMIN)]


@pytest.fixture
async def operations(stack: Stack) -> list[Operation]:
    policies = {handler.handler_name: handler.opt["access"] for handler in routes_served()}
    found = []
    for path, method, described in operations_of(await document_of(stack)):
        if described.get("security") == [{"apiToken": []}]:
            name = described["operationId"].removesuffix("_put").removesuffix("_patch")
            found.append(Operation(name, method, path, described, policies[name]))
    assert len(found) > 40
    # Operations that create come first, and those that delete come last.
    return sorted(found, key=lambda operation: turn_of(operation.method, operation.path))


async def test_a_refused_caller_changes_nothing(
    stack: Stack, url: str, callers: list[Caller], operations: list[Operation]
) -> None:
    await furnish(stack)
    refused = 0
    with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
        stored = Stored(connection)
        before = stored.now()
        for caller in callers:
            refused_operations = [
                operation for operation in operations if not caller.may(operation.policy)
            ]
            # All at once, because each waits for the next round of the database's announcements.
            answers = await asyncio.gather(
                *(one.sent(stack, url, caller) for one in refused_operations)
            )
            for operation, answer in zip(refused_operations, answers, strict=True):
                what = (caller.name, operation.name, answer.text)
                status, reason = answer.status_code, answer.json()["reason"]
                if caller.role is None:
                    assert status == 401, what
                    assert reason in TURNED_AWAY, what
                else:
                    # A resource outside the caller's fleets does not exist for the caller.
                    is_hidden = caller.fleets == ("elsewhere",) and status == 404
                    assert is_hidden or (status, reason) == (403, "FORBIDDEN"), what
                refused += 1
            assert stored.now() == before, caller.name
    assert refused > 200


async def test_a_token_of_other_fleets_finds_and_changes_nothing(
    stack: Stack, url: str, callers: list[Caller], operations: list[Operation]
) -> None:
    await furnish(stack)
    with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
        stored = Stored(connection)
        before = stored.now()
        others = [caller for caller in callers if caller.fleets == ("elsewhere",)]
        for caller in others:
            asked = [
                operation
                for operation in operations
                if caller.may(operation.policy) and operation.names_something()
            ]
            answers = await asyncio.gather(*(one.sent(stack, url, caller) for one in asked))
            for operation, answer in zip(asked, answers, strict=True):
                what = (caller.name, operation.name, answer.text)
                # What no restricted token may do is refused before anything is looked up.
                is_forbidden = answer.json()["reason"] == "FORBIDDEN" and "field" in answer.json()
                assert answer.status_code == 404 or is_forbidden, what
                assert "raspberry" not in answer.text, what
            assert stored.now() == before, caller.name
        assert others


async def test_an_admitted_caller_is_served(
    stack: Stack, url: str, callers: list[Caller], operations: list[Operation]
) -> None:
    await furnish(stack)
    done = {operation.name: set[int]() for operation in operations}
    for operation in operations:
        for caller in callers:
            if caller.may(operation.policy):
                answer = await operation.sent(stack, url, caller)
                what = (caller.name, operation.name, answer.status_code, answer.text)
                if caller.fleets and answer.status_code in (403, 422):
                    assert answer.json()["reason"] in OUT_OF_REACH, what
                    assert "field" in answer.json(), what
                    continue
                assert answer.status_code in SERVED, what
                done[operation.name].add(answer.status_code)
    # Most operations succeed; the others find nothing that is left.
    idle = [name for name, codes in done.items() if min(codes) >= 300]
    assert len(idle) < len(done) / 4, idle
