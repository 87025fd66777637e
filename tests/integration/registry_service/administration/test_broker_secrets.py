"""The secrets with which brokers ask about clients: created, shown once, listed, deleted."""

import asyncio
from hashlib import sha256
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.integration.gateway.test_gateway_http import assert_problem
from tests.integration.registry_service.provisioning.test_key_races import owned, waiting
from tests.stack import Stack


async def made(stack: Stack, broker_id: int) -> dict[str, Any]:
    answer = await stack.admin("POST", f"/brokers/{broker_id}/secrets")
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def listed(stack: Stack, broker_id: int) -> list[dict[str, Any]]:
    page = (await stack.admin("GET", f"/brokers/{broker_id}/secrets")).json()
    assert page["next_cursor"] is None
    items: list[dict[str, Any]] = page["items"]
    return items


def lines(stack: Stack) -> list[Any]:
    return stack.database.execute(
        "SELECT actor, action, subject, before, after FROM audit_log"
        " WHERE starts_with(action, 'broker_secret.') AND refusal = '' ORDER BY id"
    )


async def test_a_secret_from_creation_to_deletion(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    broker_id = await stack.create_broker("Cloud")
    with capture_logs() as logs:
        first = await made(stack, broker_id)
        secret = first.pop("secret")
        assert secret.startswith("mbs_")
        assert secret.startswith(first["prefix"])
        assert len(first["prefix"]) == 10
        assert (first["broker_id"], first["last_used_at"]) == (broker_id, None)
        assert set(first) == {"id", "broker_id", "prefix", "created_at", "last_used_at"}

        second = await made(stack, broker_id)
        assert second.pop("secret") != secret
        assert await listed(stack, broker_id) == [first, second]
        assert await listed(stack, stack.default_broker_id) == []
        path = f"/brokers/{broker_id}/secrets/{first['id']}"
        # The path of another broker does not lead to this secret.
        wrong = f"/brokers/{stack.default_broker_id}/secrets/{first['id']}"
        refused = await stack.admin("DELETE", wrong)
        assert_problem(refused, 404, "BROKER_SECRET_NOT_FOUND")
        assert (await stack.admin("DELETE", path)).status_code == 204
        assert_problem(await stack.admin("DELETE", path), 404, "BROKER_SECRET_NOT_FOUND")
        assert await listed(stack, broker_id) == [second]

    state = {"broker_id": broker_id}
    assert lines(stack) == [
        ("tests", "broker_secret.create", first["id"], None, state),
        ("tests", "broker_secret.create", second["id"], None, state),
        ("tests", "broker_secret.delete", first["id"], state, None),
    ]
    assert secret not in str(logs) + caplog.text
    everything = stack.database.execute("SELECT broker_secrets::text FROM broker_secrets")
    everything += stack.database.execute("SELECT audit_log::text FROM audit_log")
    assert not any(secret in row for (row,) in everything)


async def test_only_the_hash_is_stored(stack: Stack) -> None:
    shown = await made(stack, stack.default_broker_id)
    kept = stack.database.execute(
        "SELECT broker_id, secret_hash FROM broker_secrets", role="mooring_access"
    )
    assert kept == [(stack.default_broker_id, sha256(shown["secret"].encode()).digest())]


async def test_a_broker_has_five_at_most_however_many_ask_at_once(stack: Stack) -> None:
    broker_id = await stack.create_broker("Cloud")
    path = f"/brokers/{broker_id}/secrets"
    await made(stack, broker_id)
    answers = await asyncio.gather(*(stack.admin("POST", path) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [409] * 8
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert_problem(refused, 409, "TOO_MANY_BROKER_SECRETS")
    # Other brokers are not limited by this one, and a deleted secret makes room.
    await made(stack, stack.default_broker_id)
    first, *_ = await listed(stack, broker_id)
    assert (await stack.admin("DELETE", f"{path}/{first['id']}")).status_code == 204
    await made(stack, broker_id)
    assert len(await listed(stack, broker_id)) == 5


async def test_an_unknown_broker_has_no_secrets(stack: Stack) -> None:
    for path in ("/brokers/77/secrets", "/brokers/2147483647/secrets"):
        for method in ("POST", "GET"):
            assert_problem(await stack.admin(method, path), 404, "BROKER_NOT_FOUND")
        refused = await stack.admin("DELETE", f"{path}/{'0' * 32}")
        assert_problem(refused, 404, "BROKER_NOT_FOUND")
    for secret_id in ("none", "%00", "0" * 32):
        path = f"/brokers/{stack.default_broker_id}/secrets/{secret_id}"
        assert_problem(await stack.admin("DELETE", path), 404, "BROKER_SECRET_NOT_FOUND")


async def test_deleting_a_broker_deletes_its_secrets(stack: Stack) -> None:
    broker_id = await stack.create_broker("Cloud")
    await made(stack, broker_id)
    kept = await made(stack, stack.default_broker_id)
    assert (await stack.admin("DELETE", f"/brokers/{broker_id}")).status_code == 204
    found = stack.database.execute("SELECT id::text FROM broker_secrets")
    assert found == [(kept["id"],)]


async def test_a_broker_that_is_deleted_meanwhile_is_not_found(stack: Stack) -> None:
    broker_id = await stack.create_broker("Cloud")
    with owned(stack) as connection:
        connection.execute("DELETE FROM mqtt_broker_config WHERE id = %s", [broker_id])
        making = asyncio.create_task(stack.admin("POST", f"/brokers/{broker_id}/secrets"))
        await waiting(stack, 1)
    assert_problem(await making, 404, "BROKER_NOT_FOUND")


async def test_a_secret_in_another_field_is_hidden_in_the_audit_log(stack: Stack) -> None:
    secret = (await made(stack, stack.default_broker_id))["secret"]
    body = {"description": f"shows {secret}"}
    path = f"/brokers/{stack.default_broker_id}"
    assert (await stack.admin("PATCH", path, json=body)).status_code == 200
    assert secret not in str(stack.database.execute("SELECT audit_log::text FROM audit_log"))


async def test_the_access_listener_is_notified_of_each_change(stack: Stack) -> None:
    with owned(stack) as listening:
        listening.autocommit = True
        listening.execute("LISTEN mooring_access")
        shown = await made(stack, stack.default_broker_id)
        path = f"/brokers/{stack.default_broker_id}/secrets/{shown['id']}"
        assert (await stack.admin("DELETE", path)).status_code == 204
        heard = [note.channel for note in listening.notifies(timeout=5, stop_after=2)]
    assert heard == ["mooring_access"] * 2
