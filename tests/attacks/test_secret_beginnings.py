"""No secret and no prefix of one is ever in the audit log or in a log."""

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tests.brokers import asking
from tests.stack import Stack

# The prefix that lists show to recognise a secret.
SHOWN = 6


async def test_no_line_contains_the_prefix_of_a_secret(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds for every kind of secret: made, used wrongly, and revoked."""
    secrets: list[str] = []
    with capture_logs() as logs:
        broker_id = stack.default_broker_id
        for path, body, field in (
            (f"/brokers/{broker_id}/secrets", None, "secret"),
            ("/tokens", {"name": "t", "role": "viewer"}, "token"),
            ("/provisioning-keys", {"fleet_id": "demo"}, "key"),
            ("/service-accounts", {"username": "account"}, "password"),
        ):
            made: Any = (await stack.admin("POST", path, json=body)).json()
            secrets.append(made[field])
            if "id" in made:
                deleted = await stack.admin("DELETE", f"{path}/{made['id']}")
                assert deleted.status_code == 204, path
        secrets.append((await stack.register("one")).json()["mqtt"]["password"])
        # A secret with one wrong character, in all places that take one.
        nearly = secrets[0][:-1] + "_"
        async with asking(stack) as brokers:
            secrets.append(brokers.secret)
            for wrong in (nearly, brokers.secret[:-1] + "_"):
                await brokers.http.post(f"/{wrong}/emqx/event", json={})
                await brokers.emqx("event", wrong, event="x")
        for wrong in (secrets[1][:-1] + "_", secrets[0]):
            headers = {"Authorization": f"Bearer {wrong}"}
            await stack.http.get("/api/v1/devices", headers=headers)
    [(whole,)] = stack.database.execute("SELECT json_agg(audit_log)::text FROM audit_log")
    said = (
        whole
        + str(logs)
        + "\n".join(line for line in caplog.text.splitlines() if "httpx" not in line)
    )
    for secret in secrets:
        random = secret.removeprefix(secret[:4]) if secret[3:4] == "_" else secret
        assert random[:SHOWN] not in said


async def test_wrong_broker_secrets_are_always_logged(stack: Stack) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("mooring_access_secrets_refused_total") or 0.0

    before = count()
    line = "SELECT count, details FROM audit_log WHERE refusal = 'BROKER_SECRET_INVALID'"
    async with asking(stack) as brokers:
        statuses = {
            (await brokers.http.post(f"/mbs_{n}/emqx/event", json={})).status_code
            for n in range(100)
        }
        assert statuses == {401, 429}
        # A broker at the same address is served.
        answer = await brokers.emqx("event", event="client.connected", clientid="c")
        assert answer.status_code == 200
        async with asyncio.timeout(15):
            while not stack.database.execute(line):
                await asyncio.sleep(0.02)
    assert count() == before + 100
    lines = stack.database.execute(line)
    assert sum(attempts for attempts, _ in lines) == 100
    assert len(lines) <= 3
    assert "127.0.0.1" in str(lines)
