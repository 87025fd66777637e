"""What the broker service tells Mooring's own services, and no others, about managed brokers."""

import ast
import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from mooring.broker.v1 import management_pb2 as pb
from mooring.broker.v1 import management_pb2_grpc

import gateway
from chassis.database_failures import DATABASE_UNAVAILABLE
from chassis.errors import REASON, Unavailable
from chassis.identities import Identity
from chassis.trust import Access, Actor
from tests.integration.broker_service.brokers.test_brokers import created
from tests.integration.gateway.test_document import document_of, operations_of
from tests.integration.registry_service.provisioning.test_fallback import shut_out
from tests.stack import Stack
from tests.unit.broker_service.certificates.test_certificates import root

METHOD = "/mooring.broker.v1.ManagementService/ListManagedBrokers"
PASSWORD = "s3cret-Passw0rd-of-the-management"
URL = "https://emqx.example.com:18083"
EMQX = {"management": "emqx", "management_url": URL, "username": "mooring", "password": PASSWORD}
MOSQUITTO = {"management": "mosquitto", "username": "admin", "password": f"{PASSWORD}2"}


async def managed(stack: Stack) -> list[pb.ManagedBroker]:
    answer = await stack.broker.ask(
        management_pb2_grpc.ManagementServiceStub,
        "ListManagedBrokers",
        pb.ListManagedBrokersRequest(),
        actor=None,
    )
    return list(answer.brokers)


async def test_managed_brokers_are_listed_with_all_that_managing_them_takes(stack: Stack) -> None:
    assert await managed(stack) == []
    await created(stack, name="unmanaged", username="u", password="p")
    emqx = await created(stack, name="emqx", **EMQX)
    ca = root()
    fields = {"protocol": "wss", "path": "/mqtt", "host": "::1", "verify_certificate": False}
    mosquitto = await created(stack, name="mosquitto", ca_cert=ca, **fields, **MOSQUITTO)
    assert await managed(stack) == [
        pb.ManagedBroker(
            id=emqx["id"],
            name="emqx",
            management="emqx",
            management_url=URL,
            protocol="mqtts",
            host="mqtt.example.com",
            port=8883,
            use_tls=True,
            verify_certificate=True,
            username="mooring",
            password=PASSWORD,
            revision=1,
        ),
        pb.ManagedBroker(
            id=mosquitto["id"],
            name="mosquitto",
            management="mosquitto",
            protocol="wss",
            host="::1",
            port=8883,
            path="/mqtt",
            use_tls=True,
            ca_cert=ca,
            username="admin",
            password=f"{PASSWORD}2",
            revision=1,
        ),
    ]


async def test_a_change_is_in_the_next_list(stack: Stack) -> None:
    broker = await created(stack, **EMQX)
    path = f"/brokers/{broker['id']}"

    async def after_change(**change: Any) -> pb.ManagedBroker | None:
        answer = await stack.admin("PATCH", path, json=change)
        assert answer.status_code == 200, answer.text
        found = await managed(stack)
        if not found:
            return None
        [one] = found
        assert one.revision == answer.json()["revision"]
        return one

    for n in range(3):
        one = await after_change(password=f"new {n}", management_url=f"{URL}/{n}", port=1000 + n)
        assert one is not None
        assert (one.password, one.management_url) == (f"new {n}", f"{URL}/{n}")
        assert one.port == 1000 + n
    assert await after_change(is_active=False) is None
    assert await after_change(is_active=True) is not None
    assert await after_change(management=None, management_url=None) is None
    # SQL counts as well, and nothing announces it to the service.
    set_it = "UPDATE mqtt_broker_config SET management = 'mosquitto' WHERE id = %s"
    stack.database.execute(set_it, broker["id"], role="mooring_operator")
    assert [one.management for one in await managed(stack)] == ["mosquitto"]
    assert (await stack.admin("DELETE", path)).status_code == 204
    assert await managed(stack) == []


async def test_while_a_ca_is_replaced_both_are_listed(stack: Stack) -> None:
    old, new = root(), root()
    broker = await created(stack, ca_cert=old, **EMQX)
    rotation = f"/certificates/{broker['ca_certificate_id']}/rotation"
    body = {"replacement": {"pem": new}, "threshold_percent": 0}
    assert (await stack.admin("POST", rotation, json=body)).status_code == 201
    assert [one.ca_cert for one in await managed(stack)] == [old + new]
    await stack.admin("POST", f"/brokers/{broker['id']}/default")
    config = (await stack.register()).json()["mqtt"]["brokerConfig"]
    assert config["caCert"] == old + new
    over = await stack.admin("POST", f"{rotation}/cutover", json={"force": True})
    assert over.status_code == 200, over.text
    assert [one.ca_cert for one in await managed(stack)] == [new]


async def test_a_password_that_cannot_be_read_is_an_error_of_its_broker_only(stack: Stack) -> None:
    broken = await created(stack, name="broken", **EMQX)
    copied = await created(stack, name="copied", **EMQX)
    whole = await created(stack, name="whole", **MOSQUITTO)
    change = "UPDATE mqtt_broker_config SET password_encrypted = {} WHERE id = %s"
    # One is encrypted under a key that is in no ring, the other for another row.
    stack.database.execute(change.format("set_byte(password_encrypted, 4, 9)"), broken["id"])
    kept = "(SELECT password_encrypted FROM mqtt_broker_config WHERE name = 'whole')"
    stack.database.execute(change.format(kept), copied["id"])
    after_change = {one.id: one for one in await managed(stack)}
    for broker in (broken, copied):
        one = after_change[broker["id"]]
        assert (one.WhichOneof("secret"), one.password) == ("password_error", "")
        assert "key is not in the ring" in one.password_error
        assert one.management_url == URL
    assert after_change[whole["id"]].password == MOSQUITTO["password"]


async def test_without_the_service_secret_it_is_refused(stack: Stack) -> None:
    await created(stack, **EMQX)
    call: Any = stack.broker.channel.unary_unary(METHOD)
    admin = stack.metadata(Actor("boss", Access.ADMIN), Identity.ENFORCEMENT)
    for shown in (None, "", "Bearer ", "Bearer wrong", f"Bearer {stack.admin_token}"):
        metadata = {name: value for name, value in admin.items() if name != "authorization"}
        if shown is not None:
            metadata["authorization"] = shown
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", timeout=10, metadata=tuple(metadata.items()))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert dict(refused.value.trailing_metadata())[REASON] == "UNTRUSTED_SERVICE"
    assert PASSWORD.encode() in await call(b"", timeout=10, metadata=tuple(admin.items()))


async def test_managed_brokers_cannot_be_listed_through_the_gateway(stack: Stack) -> None:
    broker = await created(stack, **EMQX)
    for method in ("GET", "POST"):
        for path in (METHOD, f"/api/v1{METHOD}", "/api/v1/management", "/api/v1/managed-brokers"):
            headers = {"Authorization": f"Bearer {stack.admin_token}"}
            answer = await stack.http.request(method, path, headers=headers)
            assert answer.status_code == 404, (path, answer.text)
    # An administrator cannot read the password anywhere.
    walked = 0
    for path, verb, operation in operations_of(await document_of(stack)):
        if verb == "get" and operation.get("security") == [{"apiToken": []}]:
            walked += 1
            asked = path.removeprefix("/api/v1").replace("{broker_id}", str(broker["id"]))
            answer = await stack.admin("GET", asked.replace("{revision}", "1"))
            assert PASSWORD not in answer.text, path
    assert walked > 20
    # The gateway's code has no way to ask for it.
    for file in Path(gateway.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                assert not any("management_pb2" in name for name in names), file


async def test_no_password_is_in_a_log(
    stack: Stack, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    broker = await created(stack, **EMQX)
    path = f"/brokers/{broker['id']}"
    assert [one.password for one in await managed(stack)] == [PASSWORD]
    for wrong in ({"management": "x"}, {"management_url": f"https://u:{PASSWORD}@h"}):
        refused = await stack.admin("PATCH", path, json=wrong)
        assert refused.status_code == 422
        assert PASSWORD not in refused.text
    stack.database.execute(
        "UPDATE mqtt_broker_config SET password_encrypted = set_byte(password_encrypted, 4, 9)"
    )
    assert [one.WhichOneof("secret") for one in await managed(stack)] == ["password_error"]
    said = capsys.readouterr()
    records = json.dumps([record.__dict__ for record in caplog.records], default=str)
    for text in (said.out, said.err, caplog.text, records):
        assert PASSWORD not in text
    assert PASSWORD not in str(stack.database.execute("SELECT a FROM audit_log AS a"))


async def test_without_a_database_the_list_is_unavailable(stack: Stack) -> None:
    await created(stack, **EMQX)
    with shut_out(stack, "mooring_broker"), pytest.raises(Unavailable) as failed:
        await managed(stack)
    assert failed.value.reason == DATABASE_UNAVAILABLE
    async with asyncio.timeout(10):
        while not await stack.broker.is_serving("database"):
            await asyncio.sleep(0.02)
    assert len(await managed(stack)) == 1


async def test_a_stored_password_is_never_sent_to_another_destination(stack: Stack) -> None:
    emqx = await created(stack, name="emqx", **EMQX)
    plain = await created(stack, name="plain", username="u", password=PASSWORD)
    mosquitto = await created(stack, name="mosquitto", **MOSQUITTO)
    for broker, change in (
        (emqx, {"management_url": "https://evil.example"}),
        (emqx, {"verify_certificate": False}),
        (emqx, {"management": "mosquitto", "management_url": None}),
        (plain, {"management": "emqx", "management_url": "https://evil.example"}),
        (plain, {"management": "mosquitto", "management_url": None, "host": "evil.example"}),
        (mosquitto, {"host": "evil.example"}),
        (mosquitto, {"port": 1}),
        (mosquitto, {"protocol": "mqtt"}),
    ):
        path = f"/brokers/{broker['id']}"
        refused = await stack.admin("PATCH", path, json=change)
        assert (refused.status_code, refused.json()["field"]) == (422, "password"), change
        again = await stack.admin("PATCH", path, json={**change, "password": PASSWORD})
        assert again.status_code == 200, again.text
    # A password that goes to the broker itself need not be given again for managing it.
    other = await created(stack, name="other", username="u", password=PASSWORD)
    changed = await stack.admin(
        "PATCH", f"/brokers/{other['id']}", json={"management": "mosquitto"}
    )
    assert changed.status_code == 200, changed.text
