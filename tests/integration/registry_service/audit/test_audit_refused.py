"""Requests that the gateway itself refuses have lines in the audit log too."""

import asyncio
from typing import Any

import pytest
from mooring.registry.v1 import audit_pb2, tokens_pb2
from prometheus_client import REGISTRY

import gateway.__main__
from chassis.audit import action_of
from chassis.errors import InvalidInput
from chassis.trust import Access, access_of
from gateway.administration import refused
from gateway.administration.caller import Caller
from tests.integration.chassis.test_guarded_server import POLICIES
from tests.integration.chassis.test_policies import routes_served
from tests.integration.registry_service.audit.test_audit_log import lines, summary, until
from tests.stack import PATIENCE_S, Stack

JSON = "application/json"


async def send(stack: Stack, method: str, path: str, **options: Any) -> int:
    headers = {"Authorization": f"Bearer {stack.admin_token}"}
    if content_type := options.pop("type", ""):
        headers["Content-Type"] = content_type
    url = f"/api/v1{path}"
    return (await stack.http.request(method, url, headers=headers, **options)).status_code


def lost() -> float:
    return REGISTRY.get_sample_value("mooring_gateway_refusals_lost_total") or 0.0


async def test_a_change_that_reaches_no_service_has_a_line(stack: Stack) -> None:
    answer = await stack.admin("PATCH", "/brokers/7", json={"port": 70000})
    assert (answer.status_code, answer.json()["field"]) == (422, "port")
    [line] = await until(stack, 1, refused_only=True)
    assert summary(line) == ("tests", "broker.update", "7", "INVALID_INPUT")
    assert line.actor_id
    assert line.request_id == answer.headers["x-request-id"]


async def test_every_reason_of_a_refusal_has_one_line(stack: Stack) -> None:
    attempts: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/brokers", {"json": {"name": "b", "colour": "red"}}),
        ("PUT", "/devices/one", {"content": "{}", "type": "text/plain"}),
        ("PATCH", "/fleets/demo", {"content": b"x" * 2_000_000, "type": JSON}),
        ("POST", "/tokens", {"content": "{", "type": JSON}),
        # The service refuses this one, and writes its line.
        ("DELETE", "/devices/nobody", {}),
        # These would change nothing, so they have no line.
        ("GET", "/brokers?limit=0", {}),
        ("POST", "/resolution/explain", {"json": {"mqtt_broker_id": "x"}}),
        ("POST", "/brokers?dry_run=true", {"json": {"name": "b", "colour": "red"}}),
        ("PATCH", "/brokers/1?dry_run=true", {"json": {"host": "a b"}}),
    ]
    statuses = [await send(stack, *attempt[:2], **attempt[2]) for attempt in attempts]
    assert statuses == [422, 415, 413, 400, 404, 422, 422, 422, 422]
    found = await until(stack, 5, refused_only=True)
    assert sorted(summary(line)[1:] for line in found) == [
        ("broker.create", "", "INVALID_INPUT"),
        ("device.delete", "nobody", "DEVICE_NOT_FOUND"),
        ("device.update", "one", "UNSUPPORTED_MEDIA_TYPE"),
        ("fleet.update", "demo", "BODY_TOO_LARGE"),
        ("token.create", "", "MALFORMED_REQUEST"),
    ]
    assert {line.count for line in found} == {1}


async def test_a_viewers_attempt_has_a_line_and_an_invalid_token_has_none(stack: Stack) -> None:
    request = tokens_pb2.CreateTokenRequest(name="vera", role=tokens_pb2.ROLE_VIEWER)
    secret = (await stack.registry.tokens("CreateToken", request)).secret
    for token, status in ((secret[:-2], 401), (secret, 422)):
        answer = await stack.http.patch(
            "/api/v1/brokers/7",
            json={"port": 70000},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == status
    [line] = await until(stack, 1, action="broker.update")
    assert summary(line) == ("vera", "broker.update", "7", "INVALID_INPUT")


async def test_answers_do_not_wait_for_lines_and_lost_lines_are_counted(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_continue = asyncio.Event()
    real = Caller.ask_registry

    async def held(caller: Any, method: Any, question: Any) -> Any:
        if isinstance(question, audit_pb2.NoteRefusalRequest):
            await may_continue.wait()
        return await real(caller, method, question)

    monkeypatch.setattr(Caller, "ask_registry", held)
    before = lost()
    try:
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(refused.MAX_UNDER_WAY + 3):
                answer = await stack.admin("PATCH", "/brokers/7", json={"port": 70000})
                assert answer.status_code == 422
    finally:
        may_continue.set()
    assert lost() - before == 3
    assert await until(stack, 1, refused_only=True)


async def test_an_unavailable_registry_does_not_change_answers(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused, "SEND_S", 0.0)
    before = lost()
    answer = await stack.admin("PATCH", "/brokers/7", json={"port": 70000})
    assert answer.status_code == 422
    async with asyncio.timeout(PATIENCE_S):
        while lost() - before != 1:
            await asyncio.sleep(0.02)


async def test_a_gateway_that_stops_has_sent_all_refusals(stack: Stack) -> None:
    async with gateway.__main__.running(stack.gateway_config()) as url:
        for number in range(5):
            answer = await stack.http.patch(
                f"{url}/api/v1/brokers/{number}",
                json={"port": 70000},
                headers={"Authorization": f"Bearer {stack.admin_token}"},
            )
            assert answer.status_code == 422
    assert len(await until(stack, 5, action="broker.update")) == 5


@pytest.mark.parametrize(
    ("action", "reason", "field"),
    [("", "NO", "action"), ("broker.update\n", "NO", "action"), ("a.b", "no", "reason")],
)
async def test_a_refusal_from_the_gateway_must_be_well_formed(
    stack: Stack, action: str, reason: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as found:
        await stack.registry.audit(
            "NoteRefusal", audit_pb2.NoteRefusalRequest(action=action, reason=reason)
        )
    assert found.value.field == field


async def test_subjects_hide_secrets(stack: Stack) -> None:
    secret = "mat_" + "x" * 43
    await send(stack, "PATCH", f"/fleets/{secret}", content="{", type=JSON)
    [line] = await until(stack, 1, refused_only=True)
    assert (line.action, line.subject) == ("fleet.update", "(hidden)")
    assert secret not in str(await lines(stack))


def test_every_route_that_changes_something_names_its_action() -> None:
    known = set(map(action_of, POLICIES))
    for handler in routes_served():
        action = handler.opt.get("action")
        if handler.http_methods == {"GET"}:
            assert action is None, handler.handler_name
        elif action is not None or access_of(handler.opt["access"]) > Access.VIEWER:
            assert action in known, handler.handler_name
