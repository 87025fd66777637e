"""No answer shows a token that is restricted to fleets how its brokers are managed."""

from typing import Any

import pytest

from tests.integration.broker_service.brokers.test_brokers import created
from tests.integration.gateway.test_document import document_of, operations_of
from tests.stack import Stack

LOGIN, URL = "control-login-of-the-broker", "https://management.example.com:18083/hidden"


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_login_and_management_url_are_hidden(stack: Stack, role: str) -> None:
    broker = await created(
        stack, management="emqx", management_url=URL, username=LOGIN, password="p"
    )
    broker_id = broker["id"]
    allowed = {"mqtt_broker_id": broker_id, "allowed_broker_ids": [broker_id]}
    changed = await stack.admin("PATCH", "/fleets/demo", json=allowed)
    assert changed.status_code == 200, changed.text
    # It had another username before, which is in the history and the audit log.
    await stack.admin("PATCH", f"/brokers/{broker_id}", json={"username": f"{LOGIN}-2"})
    assert (await stack.register("d")).status_code == 201
    given: dict[str, Any] = {"name": "customer", "role": role, "fleet_ids": ["demo"]}
    made = await stack.admin("POST", "/tokens", json=given)
    assert made.status_code == 201, made.text
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    served, seen_by_admin = set(), set()
    for path, verb, operation in operations_of(await document_of(stack)):
        if verb != "get" or operation.get("security") != [{"apiToken": []}]:
            continue
        asked = path.replace("{broker_id}", str(broker_id)).replace("{revision}", "1")
        asked = asked.replace("{uuid}", "d").replace("{fleet_id}", "demo")
        answer = await stack.http.get(asked, headers=headers)
        assert LOGIN not in answer.text, path
        assert "management.example.com" not in answer.text, path
        if answer.status_code == 200:
            served.add(path)
        if LOGIN in (await stack.admin("GET", asked.removeprefix("/api/v1"))).text:
            seen_by_admin.add(path)
    # The token sees the broker without them; other tokens see all of it.
    assert {"/api/v1/brokers", "/api/v1/brokers/{broker_id}"} <= served & seen_by_admin
    [one] = (await stack.http.get("/api/v1/brokers", headers=headers)).json()["items"]
    assert (one["id"], one["username"], one["management_url"]) == (broker_id, None, None)
    assert one["host"] == broker["host"]
