"""API tokens: created, shown once, listed, used, revoked."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx2
import pytest
import sqlalchemy as sa
from mooring.registry.v1 import tokens_pb2 as pb
from mooring.registry.v1 import tokens_pb2_grpc
from psycopg.errors import CheckViolation

from chassis.database import engine_of
from chassis.errors import Forbidden, NotFound
from chassis.trust import Access, Actor
from registry_service.administration.tokens.store import TokenStore
from tests.integration.gateway.test_gateway_http import assert_problem
from tests.integration.registry_service.provisioning.test_key_races import owned, waiting
from tests.stack import Stack

NEVER_MADE = "mat_" + "x" * 43


async def made(stack: Stack, role: str = "viewer", **fields: Any) -> dict[str, Any]:
    body = {"name": f"a {role}", "role": role, **fields}
    answer = await stack.admin("POST", "/tokens", json=body)
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def asked(stack: Stack, token: str, path: str = "/tokens/self") -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return await stack.http.get(f"/api/v1{path}", headers=headers)


def lines(stack: Stack, action: str) -> list[Any]:
    return stack.database.execute(
        "SELECT actor, subject, before, after FROM audit_log WHERE action = %s ORDER BY id", action
    )


async def test_a_token_from_creation_to_revocation(stack: Stack) -> None:
    expires_at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = {"name": "Ops", "role": "operator", "expires_at": expires_at}
    answer = await stack.admin("POST", "/tokens", json=body)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    shown = answer.json()
    token = shown.pop("token")
    assert token.startswith(shown["prefix"])
    assert len(shown["prefix"]) == 10
    assert (shown["name"], shown["role"], shown["is_active"]) == ("Ops", "operator", True)
    assert datetime.fromisoformat(shown["expires_at"]) == datetime.fromisoformat(expires_at)
    assert lines(stack, "token.create")[-1] == (
        "tests",
        shown["id"],
        None,
        {
            "name": "Ops",
            "role": "operator",
            "expires_at": lines(stack, "token.create")[-1][3]["expires_at"],
        },
    )

    path = f"/tokens/{shown['id']}"
    assert (await stack.admin("GET", path)).json() == shown
    own = (await asked(stack, token)).json()
    assert (own["id"], own["role"]) == (shown["id"], "operator")
    listed = await stack.admin("GET", "/tokens")
    assert shown["id"] in [one["id"] for one in listed.json()["items"]]
    assert token not in listed.text

    # The token is nowhere in the database.
    everything = stack.database.execute("SELECT api_tokens::text FROM api_tokens")
    everything += stack.database.execute("SELECT audit_log::text FROM audit_log")
    assert not any(token in row for (row,) in everything)

    for _ in range(2):
        assert (await stack.admin("DELETE", path)).status_code == 204
        assert_problem(await asked(stack, token), 401, "TOKEN_UNKNOWN")
    assert (await stack.admin("GET", path)).json()["is_active"] is False
    assert lines(stack, "token.revoke") == [
        ("tests", shown["id"], {"is_active": True}, {"is_active": False})
    ]


async def test_tokens_are_listed_page_by_page(stack: Stack) -> None:
    ids = {(await made(stack, name=f"t{n}"))["id"] for n in range(4)}
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await stack.admin("GET", "/tokens", params={"limit": 2, "cursor": cursor})).json()
        assert 0 < len(page["items"]) <= 2
        found += [token["id"] for token in page["items"]]
        cursor = page["next_cursor"]
    assert found == sorted(found)
    assert ids < set(found)
    assert len(found) == 5


async def test_every_token_may_read_itself_and_only_admins_other_tokens(stack: Stack) -> None:
    for role in ("viewer", "operator"):
        token = await made(stack, role)
        assert (await asked(stack, token["token"])).json()["name"] == f"a {role}"
        for path in ("/tokens", f"/tokens/{token['id']}"):
            assert_problem(await asked(stack, token["token"], path), 403, "FORBIDDEN")
        headers = {"Authorization": f"Bearer {token['token']}"}
        body = {"name": "mine", "role": "admin"}
        answer = await stack.http.post("/api/v1/tokens", headers=headers, json=body)
        assert_problem(answer, 403, "FORBIDDEN")
        answer = await stack.http.delete(f"/api/v1/tokens/{token['id']}", headers=headers)
        assert_problem(answer, 403, "FORBIDDEN")


async def test_invalid_fields_are_named(stack: Stack) -> None:
    right: dict[str, Any] = {"name": "n", "role": "viewer"}
    for wrong, field in (
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": None}, "name"),
        ({"role": "root"}, "role"),
        ({"role": "ADMIN"}, "role"),
        ({"role": 3}, "role"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:00"}, "expires_at"),
        ({"token": "mat_mine"}, "token"),
        ({"fleet_ids": []}, "fleet_ids"),
        ({"fleet_ids": [f"f{n}" for n in range(65)]}, "fleet_ids"),
        ({"fleet_ids": ["demo", "a,b"]}, "fleet_ids[1]"),
        ({"fleet_ids": ["demo"], "role": "admin"}, "fleet_ids"),
    ):
        answer = await stack.admin("POST", "/tokens", json=right | wrong)
        assert_problem(answer, 422, "INVALID_INPUT", field)
    answer = await stack.admin("POST", "/tokens", json=right | {"fleet_ids": ["demo", "demos"]})
    assert_problem(answer, 422, "FLEET_UNKNOWN", "fleet_ids[1]")
    for path in ("/tokens/none", f"/tokens/{'0' * 32}", "/tokens/%00"):
        assert_problem(await stack.admin("GET", path), 404, "TOKEN_NOT_FOUND")
        assert_problem(await stack.admin("DELETE", path), 404, "TOKEN_NOT_FOUND")
    for cursor in ("garbage", "IjEi"):
        answer = await stack.admin("GET", "/tokens", params={"cursor": cursor})
        assert_problem(answer, 422, "INVALID_INPUT", "cursor")
    assert len(stack.database.execute("SELECT id FROM api_tokens")) == 1


async def test_a_token_says_which_fleets_it_is_restricted_to(stack: Stack) -> None:
    shown = await made(stack, "operator", fleet_ids=["demo", "demo"])
    assert shown["fleet_ids"] == ["demo"]
    assert lines(stack, "token.create")[-1][3]["fleet_ids"] == ["demo"]
    assert (await asked(stack, shown["token"])).json()["fleet_ids"] == ["demo"]
    assert (await made(stack))["fleet_ids"] is None
    # A change by SQL counts as soon as any other; the database refuses invalid restrictions.
    widen = "UPDATE api_tokens SET fleet_ids = NULL WHERE id = %s"
    stack.database.execute(widen, shown["id"])
    async with asyncio.timeout(5):
        while (await asked(stack, shown["token"])).json()["fleet_ids"]:
            await asyncio.sleep(0.01)
    narrow = "UPDATE api_tokens SET fleet_ids = %s WHERE id = %s"
    for wrong in ([], [None], ["a,b"], [""]):
        with pytest.raises(CheckViolation, match="fleet_ids_are"):
            stack.database.execute(narrow, wrong, shown["id"])
    with pytest.raises(CheckViolation, match="admin_is_not_restricted"):
        stack.database.execute("UPDATE api_tokens SET fleet_ids = '{demo}' WHERE role = 'admin'")


async def test_the_longest_name_and_the_most_fleets_reach_the_services(stack: Stack) -> None:
    longest = Actor(
        "💥" * 255, Access.VIEWER, str(UUID(int=0)), frozenset(map(str, range(10**63, 10**63 + 64)))
    )
    stub = tokens_pb2_grpc.TokenServiceStub
    for _ in range(20):
        with pytest.raises(NotFound):
            await stack.registry.ask(stub, "GetOwnToken", pb.GetOwnTokenRequest(), actor=longest)


async def test_the_last_admin_token_cannot_be_revoked(stack: Stack) -> None:
    own = (await stack.admin("GET", "/tokens/self")).json()
    await made(stack, "operator")
    # An expired or revoked admin token does not count.
    lost = await made(stack, "admin")
    await stack.admin("DELETE", f"/tokens/{lost['id']}")
    late = await made(stack, "admin")
    expire = "UPDATE api_tokens SET expires_at = now() - interval '1 s' WHERE id = %s"
    stack.database.execute(expire, late["id"])
    refused = await stack.admin("DELETE", f"/tokens/{own['id']}")
    assert_problem(refused, 409, "LAST_ADMIN_TOKEN")
    assert (await stack.admin("GET", "/tokens")).status_code == 200
    # Tokens that do not count can still be revoked.
    assert (await stack.admin("DELETE", f"/tokens/{late['id']}")).status_code == 204
    await made(stack, "admin")
    assert (await stack.admin("DELETE", f"/tokens/{own['id']}")).status_code == 204
    assert_problem(await stack.admin("GET", "/tokens"), 401, "TOKEN_UNKNOWN")


async def test_two_admins_who_revoke_each_other_leave_one(stack: Stack) -> None:
    own = (await stack.admin("GET", "/tokens/self")).json()["id"]
    for _ in range(8):
        other = (await made(stack, "admin"))["id"]
        revoking = [
            stack.registry.tokens("RevokeToken", pb.RevokeTokenRequest(id=token_id))
            for token_id in (own, other)
        ]
        outcomes = await asyncio.gather(*revoking, return_exceptions=True)
        reasons = [getattr(outcome, "reason", "") for outcome in outcomes]
        assert sorted(reasons) == ["", "LAST_ADMIN_TOKEN"]
        [(left,)] = stack.database.execute(
            "SELECT id::text FROM api_tokens WHERE is_active AND role = 'admin'"
        )
        assert left == (own, other)[reasons.index("LAST_ADMIN_TOKEN")]
        stack.database.execute("UPDATE api_tokens SET is_active = (id::text = %s)", own)
        async with asyncio.timeout(5):
            while (await stack.admin("GET", "/tokens/self")).status_code != 200:
                await asyncio.sleep(0.01)


async def test_a_token_ends_when_it_expires(stack: Stack) -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=2)
    token = (await made(stack, expires_at=expires_at.isoformat()))["token"]
    async with asyncio.timeout(10):
        while (answer := await asked(stack, token)).status_code == 200:
            assert datetime.now(UTC) < expires_at + timedelta(seconds=0.5)
            await asyncio.sleep(0.05)
    assert_problem(answer, 401, "TOKEN_UNKNOWN")
    assert datetime.now(UTC) >= expires_at


async def test_an_actor_without_a_token_has_none_of_its_own(stack: Stack) -> None:
    with pytest.raises(NotFound):
        await stack.registry.tokens("GetOwnToken", pb.GetOwnTokenRequest())
    viewer = Actor("v", Access.VIEWER, "not-an-id")
    stub = tokens_pb2_grpc.TokenServiceStub
    with pytest.raises(NotFound):
        await stack.registry.ask(stub, "GetOwnToken", pb.GetOwnTokenRequest(), actor=viewer)
    with pytest.raises(Forbidden):
        await stack.registry.ask(stub, "ListTokens", pb.ListTokensRequest(), actor=viewer)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements on the table of tokens that this process executes."""
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "api_tokens" in statement:
            seen.append("UPDATE" if "UPDATE api_tokens" in statement else statement.split()[0])

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


async def test_authenticating_needs_no_query(stack: Stack, statements: list[str]) -> None:
    token = (await made(stack))["token"]
    assert (await asked(stack, token, "/brokers")).status_code == 200
    async with asyncio.timeout(5):
        while "UPDATE" not in statements:
            await asyncio.sleep(0.02)
    # The announcement of the new token may still be being read.
    await stack.registry.tokens("AuthenticateToken", pb.AuthenticateTokenRequest(secret=token))
    statements.clear()
    answers = await asyncio.gather(*(asked(stack, token, "/brokers") for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert_problem(await asked(stack, NEVER_MADE), 401, "TOKEN_UNKNOWN")
    # Once in ten seconds all tokens are read again, to be safe.
    assert statements in ([], ["SELECT"])


async def test_the_last_use_is_noted_once_in_a_while(stack: Stack, statements: list[str]) -> None:
    shown = await made(stack)
    assert shown["last_used_at"] is None
    before = datetime.now(UTC)
    for _ in range(50):
        assert (await asked(stack, shown["token"], "/fleets")).status_code == 200
    async with asyncio.timeout(5):
        while (
            found := (await stack.admin("GET", f"/tokens/{shown['id']}")).json()["last_used_at"]
        ) is None:
            await asyncio.sleep(0.02)
    used_at = datetime.fromisoformat(found)
    assert before <= used_at <= datetime.now(UTC)
    assert (await asked(stack, shown["token"], "/fleets")).status_code == 200
    assert statements.count("UPDATE") <= 2
    # Use is not in the audit log.
    actions = stack.database.execute(
        "SELECT action FROM audit_log WHERE starts_with(action, 'token')"
    )
    assert set(actions) == {("token.create",)}


async def test_uses_are_noted_in_the_order_of_ids(stack: Stack) -> None:
    """The given or stored order does not matter, so two replicas cannot deadlock."""
    low, high = UUID(int=1), UUID(int=2**128 - 1)
    for token_id in (high, low):
        stack.database.execute(
            "INSERT INTO api_tokens (id, name, role, token_hash) VALUES (%s, 'a', 'viewer', %s)",
            token_id,
            sha256(token_id.bytes).digest(),
        )
    now = datetime.now(UTC)
    engine = engine_of(stack.database.url("mooring_registry"))
    lock = "SELECT FROM api_tokens WHERE id = %s FOR NO KEY UPDATE NOWAIT"
    with owned(stack) as connection:
        connection.execute(lock, [low])
        noting = asyncio.create_task(TokenStore(engine).note_use({high: now, low: now}))
        await waiting(stack, 1)
        connection.execute(lock, [high])
    await noting
    await engine.dispose()
    noted = stack.database.execute("SELECT id FROM api_tokens WHERE last_used_at = %s", now)
    assert set(noted) == {(low,), (high,)}


async def test_a_lost_admin_token_is_replaced_by_sql(stack: Stack) -> None:
    """Runs the SQL of docs/tokens-and-roles.md."""
    stack.database.execute("UPDATE api_tokens SET is_active = false")
    token_hash = sha256(NEVER_MADE.encode()).hexdigest()
    stack.database.execute(
        "INSERT INTO api_tokens (name, role, token_hash)"
        f" VALUES ('rescue', 'admin', decode('{token_hash}', 'hex'))"
    )
    stack.admin_token = NEVER_MADE
    assert (await stack.admin("GET", "/tokens/self")).json()["name"] == "rescue"
    assert (await made(stack, "admin"))["role"] == "admin"
