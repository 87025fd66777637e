"""The audit log over HTTP: pages, and an export whose last line says whether it is complete."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from mooring.registry.v1 import tokens_pb2

from chassis.errors import Internal, Unavailable
from gateway.administration import audit_log
from gateway.administration.caller import Caller
from registry_service.audit.store import AuditStore
from tests.stack import Stack

LINES = 1_234


def fill(stack: Stack) -> None:
    stack.database.execute("TRUNCATE audit_log")
    stack.database.execute(
        "INSERT INTO audit_log (actor, actor_id, action, subject, refusal, after, request_id)"
        " SELECT 'é \"q\"', '', 'broker.update', n::text, CASE mod(n, 2) WHEN 0 THEN 'NO' ELSE ''"
        " END, jsonb_build_object('port', n, 'x', 12345678901234567890.10), ''"
        " FROM generate_series(1, %s) n",
        LINES,
    )


def read(answer: httpx2.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_an_export_has_all_lines_and_says_so(stack: Stack) -> None:
    fill(stack)
    *lines, end = read(await stack.admin("GET", "/audit-log/export"))
    assert end == {"complete": True, "lines": LINES}
    assert [line["subject"] for line in lines] == [str(n) for n in range(LINES, 0, -1)]
    assert lines[0]["actor"] == 'é "q"'
    assert (lines[0]["refusal"], lines[1]["refusal"]) == ("NO", None)
    # Numbers are exactly those of the database, not rounded to a float.
    raw = (await stack.admin("GET", "/audit-log/export", params={"subject": "7"})).text
    assert '"x": 12345678901234567890.10' in raw

    *lines, end = read(await stack.admin("GET", "/audit-log/export?refused_only=true"))
    assert end == {"complete": True, "lines": LINES // 2}
    assert {line["refusal"] for line in lines} == {"NO"}

    assert read(await stack.admin("GET", "/audit-log/export?actor=nobody")) == [
        {"complete": True, "lines": 0}
    ]


async def test_pages_over_http(stack: Stack) -> None:
    fill(stack)
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await stack.admin(
            "GET", "/audit-log", params={"action": "broker.", "limit": 300, "cursor": cursor}
        )
        page = answer.json()
        found += [line["subject"] for line in page["items"]]
        cursor = page["next_cursor"]
    assert found == [str(n) for n in range(LINES, 0, -1)]


async def test_an_export_continues_after_the_registry_was_unavailable(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(stack)
    failing = Failing(monkeypatch, Unavailable("away"), times=2)
    monkeypatch.setattr(audit_log, "PAUSE_S", 0.01)
    *lines, end = read(await stack.admin("GET", "/audit-log/export"))
    assert failing.failed == 2
    assert end == {"complete": True, "lines": LINES}
    assert len({line["id"] for line in lines}) == LINES


@pytest.mark.parametrize("error", [Unavailable("away"), Internal("broken")])
async def test_an_interrupted_export_does_not_look_complete(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fill(stack)
    Failing(monkeypatch, error, times=1_000)
    monkeypatch.setattr(audit_log, "PAUSE_S", 0.01)
    taken: list[bytes] = []
    with pytest.raises(httpx2.RemoteProtocolError):
        await take(stack, taken)
    assert 0 < b"".join(taken).count(b"\n") < LINES
    assert b"complete" not in b"".join(taken)


async def take(stack: Stack, taken: list[bytes], token: str = "") -> None:
    headers = {"Authorization": f"Bearer {token or stack.admin_token}"}
    async with stack.http.stream("GET", "/api/v1/audit-log/export", headers=headers) as answer:
        async for part in answer.aiter_raw():
            taken.append(part)  # noqa: PERF401  (parts before an error are needed too)


class Failing:
    """Makes the registry's store answer the first page, and then fail `times` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> None:
        self.failed = 0
        real = AuditStore.lines_before

        async def lines_before(of: Any, last: Any, *args: Any, **options: Any) -> Any:
            if last is not None and self.failed < times:
                self.failed += 1
                raise error
            return await real(of, last, *args, **options)

        monkeypatch.setattr(AuditStore, "lines_before", lines_before)


async def test_an_export_ends_when_its_client_disconnects(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.database.execute("TRUNCATE audit_log")
    await asyncio.to_thread(
        stack.database.execute,
        "INSERT INTO audit_log (actor, actor_id, action, subject, request_id)"
        " SELECT 'a', '', 'a.b', repeat('x', 2000) || n, '' FROM generate_series(1, 40000) n",
    )
    pages = 0
    ended = asyncio.Event()
    real = audit_log._next_page

    async def counted(*args: Any) -> Any:
        nonlocal pages
        pages += 1
        return await real(*args)

    exported = audit_log._exported

    async def watched(*args: Any) -> Any:
        try:
            async for part in exported(*args):
                yield part
        finally:
            ended.set()

    monkeypatch.setattr(audit_log, "_next_page", counted)
    monkeypatch.setattr(audit_log, "_exported", watched)
    async with stack.http.stream(
        "GET",
        "/api/v1/audit-log/export",
        headers={"Authorization": f"Bearer {stack.admin_token}"},
    ) as answer:
        assert await anext(answer.aiter_raw())
    async with asyncio.timeout(20):
        await ended.wait()
    # The gateway has not read all 80 MB for a client that had disconnected.
    assert pages < 40


@pytest.mark.parametrize("path", ["/audit-log", "/audit-log/export"])
async def test_only_an_administrator_may_read_it(stack: Stack, path: str) -> None:
    token = tokens_pb2.CreateTokenRequest(name="otto", role=tokens_pb2.ROLE_OPERATOR)
    secret = (await stack.registry.tokens("CreateToken", token)).secret
    answer = await stack.http.get(f"/api/v1{path}", headers={"Authorization": f"Bearer {secret}"})
    assert (answer.status_code, answer.json()["reason"]) == (403, "FORBIDDEN")
    answer = await stack.http.get(f"/api/v1{path}")
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/audit-log", "/audit-log/export"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=yesterday", "since"),
        ("since=2026-01-01T00:00:00", "since"),
        ("until=5", "until"),
        ("until=9999-12-31T23:59:59-23:00", "until"),
        ("refused_only=perhaps", "refused_only"),
        ("actor=%00", "actor"),
        ("subject=" + "s" * 256, "subject"),
    ],
)
async def test_an_invalid_filter_is_named(stack: Stack, path: str, query: str, field: str) -> None:
    answer = await stack.admin("GET", f"{path}?{query}")
    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_an_export_may_take_longer_than_other_requests(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(stack)
    seen: list[float] = []
    monkeypatch.setattr(Caller, "again", _remembering(Caller.again, seen))
    *_, end = read(await stack.admin("GET", "/audit-log/export"))
    assert end["lines"] == LINES
    assert len(seen) == 2
    assert seen == sorted(set(seen))


def _remembering(real: Any, seen: list[float]) -> Any:
    async def again(caller: Any, deadline: float) -> Any:
        seen.append(deadline)
        return await real(caller, deadline)

    return again


async def test_an_export_ends_when_its_token_is_revoked(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(stack)
    request = tokens_pb2.CreateTokenRequest(name="alma", role=tokens_pb2.ROLE_ADMIN)
    made = await stack.registry.tokens("CreateToken", request)
    real = audit_log._next_page
    pages = 0

    async def revoked_after_the_second(*args: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 2:
            revoke = tokens_pb2.RevokeTokenRequest(id=made.token.id)
            await stack.registry.tokens("RevokeToken", revoke)
        return await real(*args)

    monkeypatch.setattr(audit_log, "_next_page", revoked_after_the_second)
    taken: list[bytes] = []
    with pytest.raises(httpx2.RemoteProtocolError):
        await take(stack, taken, made.secret)
    # After the refusal the gateway does not ask for another page.
    assert pages == 2
    assert b"".join(taken).count(b"\n") == 1_000
    assert b"complete" not in b"".join(taken)
