"""The gateway in front of the real services: administration, and the rules of HTTP."""

import asyncio
import contextlib
import json
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import trustme
from mooring.broker.v1.brokers_pb2_grpc import BrokerServiceStub
from mooring.registry.v1 import tokens_pb2

import broker_service.__main__
from chassis.client import ServiceClient
from chassis.http_server import Address, serving
from chassis.identities import hash_of
from chassis.trust import Credentials
from gateway.app import app_of
from gateway.device_calls import DeviceCalls
from gateway.device_routes import DeviceRoutes
from gateway.service_clients import ServiceClients
from tests.stack import Stack

CA = trustme.CA().cert_pem.bytes().decode()


def assert_problem(response: httpx2.Response, status: int, reason: str, field: str = "") -> None:
    problem = response.json()
    assert (response.status_code, problem["reason"]) == (status, reason), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert problem.get("field", "") == field
    assert problem["request_id"] == response.headers["x-request-id"]


async def test_a_broker_from_creation_to_deletion(stack: Stack) -> None:
    made = await stack.admin(
        "POST",
        "/brokers",
        json={"name": "TLS", "protocol": "mqtts", "host": "h", "port": 8883, "ca_cert": CA},
    )
    assert made.status_code == 201
    broker = made.json()
    path = f"/brokers/{broker['id']}"
    times = {"created_at": broker["created_at"], "updated_at": broker["updated_at"]}
    assert broker == times | {
        "id": broker["id"],
        "warnings": [],
        "name": "TLS",
        "description": "",
        "protocol": "mqtts",
        "host": "h",
        "port": 8883,
        "path": "",
        "use_tls": True,
        "verify_certificate": True,
        "client_id_prefix": "mooring",
        "keep_alive": 60,
        "clean_session": True,
        "reconnect_period": 1000,
        "connect_timeout": 30000,
        "ca_cert": CA,
        "is_active": True,
        "region": "",
        "username": None,
        "has_password": False,
        "labels": {},
        "management": "",
        "management_url": "",
        "is_default": False,
        "ca_certificate_id": broker["ca_certificate_id"],
        "client_certificate_id": None,
        "backup_broker_id": None,
        "capacity": None,
        "revision": 1,
    }
    assert isinstance(broker["ca_certificate_id"], int)
    assert (await stack.admin("GET", path)).json() == broker

    # A field that is not named stays as it is; null removes the value.
    changed = (await stack.admin("PATCH", path, json={"ca_cert": None, "keep_alive": 0})).json()
    assert (changed["ca_cert"], changed["ca_certificate_id"], changed["keep_alive"]) == (
        None,
        None,
        0,
    )
    assert (changed["host"], changed["name"]) == ("h", "TLS")

    assert (await stack.admin("POST", f"{path}/default")).json()["is_default"] is True
    assert (await stack.admin("DELETE", path)).status_code == 409
    await stack.admin("POST", f"/brokers/{stack.default_broker_id}/default")
    gone = await stack.admin("DELETE", path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await stack.admin("GET", path)).status_code == 404


async def test_a_device_is_pinned_as_the_note_does_it_and_unpinned(stack: Stack) -> None:
    other = await stack.create_broker("Other", host="other")
    first = (await stack.register("d")).json()["mqtt"]["password"]
    before = (await stack.connection("d")).headers["etag"]

    pinned = await stack.admin("PUT", "/devices/d", json={"mqtt_broker_id": other})
    assert pinned.json()["mqtt_broker_id"] == other
    moved = await stack.connection("d", **{"If-None-Match": before})
    assert (moved.status_code, moved.json()["brokerConfig"]["host"]) == (200, "other")
    assert moved.json()["source"] == "device"

    # Changing another field does not touch the pin.
    located = await stack.admin(
        "PATCH", "/devices/d", json={"location": {"latitude": 52.5, "longitude": 13.4}}
    )
    assert located.json()["mqtt_broker_id"] == other
    assert located.json()["location"] == {"latitude": 52.5, "longitude": 13.4}

    await stack.admin("PUT", "/devices/d", json={"mqtt_broker_id": None, "location": None})
    device = (await stack.admin("GET", "/devices/d")).json()
    assert (device["mqtt_broker_id"], device["location"]) == (None, None)
    # The device is back at its first broker, and gets another password.
    back = await stack.connection("d", **{"If-None-Match": before})
    assert (back.status_code, back.json()["source"]) == (200, "default")
    assert back.json()["password"] not in (moved.json()["password"], first)
    tag = back.headers["etag"]
    again = await stack.connection("d", **{"If-None-Match": f'"x", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)

    assert (await stack.admin("DELETE", "/devices/d")).status_code == 204
    assert (await stack.connection("d")).status_code == 401


async def test_the_end_of_a_stopgap_is_a_new_answer_for_the_same_broker(
    stack: Stack,
) -> None:
    await stack.register("before")
    await stack.stop_broker_service()
    stack.database.execute("UPDATE mqtt_broker_config SET description = 'changed'")
    assert (await stack.register("d")).json()["mqtt"]["stale"] is True
    stopgap = await stack.connection("d")
    assert (stopgap.json()["stale"], stopgap.json()["refreshAfter"]) == (True, 60)
    known = {"If-None-Match": stopgap.headers["etag"]}
    assert (await stack.connection("d", **known)).status_code == 304

    await stack.start_broker_service()
    async with asyncio.timeout(10):
        while (after := await stack.connection("d", **known)).status_code == 304:
            await asyncio.sleep(0.05)
    assert after.status_code == 200
    assert "stale" not in after.json()
    assert after.json()["refreshAfter"] == 3600
    assert after.json()["generation"] == stopgap.json()["generation"]


async def test_each_service_is_called_with_the_secret_meant_for_it(
    stack: Stack, tmp_path: Path
) -> None:
    other_secret = tmp_path / "other-secret"
    other_secret.write_text(secrets.token_urlsafe(32))
    config = stack.gateway_config()
    kept = tmp_path / "hashes.json"
    kept.write_text(json.dumps({"gateway": [hash_of(other_secret.read_text()).hex()]}))
    broker_config = stack.broker_config(caller_hashes_file=kept)
    async with contextlib.AsyncExitStack() as exits:
        port = await exits.enter_async_context(broker_service.__main__.running(broker_config))
        services = ServiceClients(config)
        await services.broker.close()
        services.broker = ServiceClient(f"127.0.0.1:{port}", Credentials(other_secret.read_text))
        services.brokers = BrokerServiceStub(services.broker.channel)
        exits.push_async_callback(services.close)
        calls = DeviceCalls(services, config.request_timeout_s)
        exits.push_async_callback(calls.close)
        leaving = asyncio.Event()
        app = app_of(services, config.request_timeout_s, leaving)
        routes = DeviceRoutes(calls, None)
        address = Address(config.bind_host, config.bind_port)
        url = await exits.enter_async_context(
            serving(app, address, handlers=routes, drain_s=0, grace_s=1, leaving=leaving)
        )
        http = await exits.enter_async_context(httpx2.AsyncClient(base_url=f"{url}/api/v1"))
        token = {"Authorization": f"Bearer {stack.admin_token}"}
        for path in ("brokers", "devices", "fleets", "provisioning-keys"):
            answer = await http.get(path, headers=token)
            assert answer.status_code == 200, answer.text


async def test_devices_are_listed_page_by_page_and_by_fleet(stack: Stack) -> None:
    await stack.create_fleet("other")
    key = await stack.create_key(fleet_id="other")
    for number in range(5):
        await stack.register(f"d{number}", key=key if number == 4 else None)
    uuids: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await stack.admin("GET", "/devices", params={"limit": 2, "cursor": cursor})).json()
        assert len(page["items"]) <= 2
        uuids += [device["uuid"] for device in page["items"]]
        cursor = page["next_cursor"]
    assert uuids == ["d0", "d1", "d2", "d3", "d4"]
    of_fleet = (await stack.admin("GET", "/devices", params={"fleet_id": "other"})).json()
    assert [device["uuid"] for device in of_fleet["items"]] == ["d4"]


async def test_a_key_is_shown_once_and_can_be_revoked(stack: Stack) -> None:
    made = await stack.admin(
        "POST",
        "/provisioning-keys",
        json={
            "fleet_id": "demo",
            "description": "for a test",
            "max_devices": 3,
            "default_broker_id": stack.default_broker_id,
            "expires_at": "2100-01-01T00:00:00+02:00",
        },
    )
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    shown = made.json()
    assert shown["expires_at"] == "2099-12-31T22:00:00Z"
    assert (await stack.register("d", key=shown["key"])).status_code == 201
    listed = (await stack.admin("GET", "/provisioning-keys")).json()["items"]
    [kept] = [key for key in listed if key["id"] == shown["id"]]
    assert "key" not in kept
    assert (kept["devices_provisioned"], kept["max_devices"], kept["default_broker_id"]) == (
        1,
        3,
        stack.default_broker_id,
    )
    assert (await stack.admin("DELETE", f"/provisioning-keys/{shown['id']}")).status_code == 204
    assert (await stack.register("e", key=shown["key"])).status_code in (401, 403)


async def test_a_fleet_is_restricted_and_released(stack: Stack) -> None:
    made = await stack.admin("POST", "/fleets", json={"id": "f", "name": "F"})
    assert made.status_code == 201
    assert (made.json()["mqtt_broker_id"], made.json()["allowed_broker_ids"]) == (None, None)
    broker = stack.default_broker_id
    change = {"mqtt_broker_id": broker, "allowed_broker_ids": [broker]}
    changed = (await stack.admin("PATCH", "/fleets/f", json=change)).json()
    assert changed["revision"] > made.json()["revision"]
    noted = {name: changed[name] for name in ("revision", "updated_at")}
    assert changed == made.json() | change | noted
    freed = await stack.admin("PATCH", "/fleets/f", json={"allowed_broker_ids": None})
    assert (freed.json()["allowed_broker_ids"], freed.json()["mqtt_broker_id"]) == (None, broker)
    assert "f" in [fleet["id"] for fleet in (await stack.admin("GET", "/fleets")).json()["items"]]


async def test_a_viewer_reads_and_cannot_change(stack: Stack) -> None:
    token = tokens_pb2.CreateTokenRequest(name="a viewer", role=tokens_pb2.ROLE_VIEWER)
    stack.admin_token = (await stack.registry.tokens("CreateToken", token)).secret
    assert (await stack.admin("GET", "/brokers")).status_code == 200
    body = {"name": "x", "host": "h", "port": 1}
    assert_problem(await stack.admin("POST", "/brokers", json=body), 403, "FORBIDDEN")


@pytest.mark.parametrize("name", ["Jürgen", "名前", 'a"b\\c', "x" * 200])
async def test_a_token_with_any_name_works(stack: Stack, name: str) -> None:
    token = tokens_pb2.CreateTokenRequest(name=name, role=tokens_pb2.ROLE_OPERATOR)
    stack.admin_token = (await stack.registry.tokens("CreateToken", token)).secret
    assert (await stack.admin("GET", "/brokers")).status_code == 200


async def test_refusals_name_the_field(stack: Stack) -> None:
    await stack.register("d")
    for method, path, body, field in (
        ("PUT", "/devices/d", {"mqtt_broker_idd": 1}, "mqtt_broker_idd"),
        ("PUT", "/devices/d", {"mqtt_broker_id": "1"}, "mqtt_broker_id"),
        ("PUT", "/devices/d", {"mqtt_broker_id": 2**31}, "mqtt_broker_id"),
        ("PUT", "/devices/d", {"device_name": None}, "device_name"),
        ("PUT", "/devices/d", {"location": {"latitude": 1}}, "location.longitude"),
        ("PUT", "/devices/d", {"location": {"latitude": 91, "longitude": 0}}, "location.latitude"),
        ("POST", "/brokers", {"host": "h", "port": 1}, "name"),
        ("POST", "/brokers", {"name": "n", "host": "h", "port": 0}, "port"),
        ("POST", "/brokers", {"name": "a\x00", "host": "h", "port": 1}, "name"),
        ("POST", "/fleets", {"id": "a/b", "name": "n"}, "id"),
        ("POST", "/provisioning-keys", {"fleet_id": "demo", "max_devices": 0}, "max_devices"),
        ("PATCH", "/fleets/demo", {"allowed_broker_ids": [1, 0]}, "allowed_broker_ids[1]"),
    ):
        assert_problem(await stack.admin(method, path, json=body), 422, "INVALID_INPUT", field)
    for query in ({"limit": "abc"}, {"limit": "0"}, {"limit": "501"}, {"limit": ""}):
        answer = await stack.admin("GET", "/devices", params=query)
        assert_problem(answer, 422, "INVALID_INPUT", "limit")
    answer = await stack.admin("GET", "/devices", params={"cursor": "garbage"})
    assert_problem(answer, 422, "INVALID_INPUT", "cursor")
    long = await stack.register("e", deviceName="x" * 300)
    assert_problem(long, 422, "INVALID_INPUT", "deviceName")


async def test_the_rules_of_http_are_followed(stack: Stack) -> None:
    url = "/api/v1/device/register"
    known = {"Authorization": f"Bearer {stack.provisioning_key}"}
    typed = known | {"Content-Type": "application/json"}

    async def post(**options: Any) -> httpx2.Response:
        return await stack.http.post(url, **options)

    assert_problem(await post(json={}), 401, "UNAUTHENTICATED")
    assert_problem(await post(headers=known), 400, "MALFORMED_REQUEST")
    assert_problem(await post(headers=typed, content=b"{"), 400, "MALFORMED_REQUEST")
    plain = known | {"Content-Type": "text/plain"}
    assert_problem(await post(headers=plain, content=b"{}"), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert_problem(await post(headers=known, content=b"{}"), 415, "UNSUPPORTED_MEDIA_TYPE")
    large = b" " * (64 * 1024 + 1)
    assert_problem(await post(headers=typed, content=large), 413, "BODY_TOO_LARGE")

    async def streamed() -> Any:
        for _ in range(70):
            yield b" " * 1024

    assert_problem(await post(headers=typed, content=streamed()), 413, "BODY_TOO_LARGE")
    administration = await stack.admin("POST", "/brokers", content=b" " * (1024 * 1024 + 1))
    assert_problem(administration, 413, "BODY_TOO_LARGE")

    assert_problem(await stack.http.get("/api/v1/nothing"), 404, "NO_SUCH_PATH")
    wrong = await stack.http.put(url)
    assert_problem(wrong, 405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["allow"] == "POST"
    options = await stack.http.request("OPTIONS", "/api/v1/devices/d")
    assert options.headers["allow"] == "DELETE, GET, HEAD, PATCH, PUT"
    head = await stack.http.head("/healthz")
    assert (head.status_code, head.content) == (200, b"")
    assert "server" not in head.headers
    for odd in ("0", "-1", "2147483648", "9" * 5000, "abc", "%00", "%ff", "1%2f2"):
        assert (await stack.admin("GET", f"/brokers/{odd}")).status_code == 404, odd


@pytest.mark.parametrize(
    "head",
    [
        b"GET /\xff HTTP/1.1\r\nHost: h",
        b"GET /api/v1/brokers?limit=\xff HTTP/1.1\r\nHost: h",
        b"GET /healthz HTTP/1.1\r\nHost: a b",
        b"BREW / HTTP/1.1\r\nHost: h",
        b"POST /api/v1/device/register HTTP/1.1\r\nHost: h\r\nContent-Length: -1",
        b"\x16\x03\x01\x00\xa5",
    ],
)
async def test_malformed_http_is_400(stack: Stack, head: bytes) -> None:
    parts = urlsplit(stack.gateway_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(head + b"\r\nConnection: close\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()


async def test_answers_are_sent_without_delay(stack: Stack) -> None:
    """Nagle's algorithm would add 40 ms to each answer; asyncio does not always switch it off."""
    await stack.http.get("/healthz")
    async with asyncio.timeout(1):
        for _ in range(50):
            await stack.http.get("/healthz")


async def test_the_documentation_page_needs_no_other_server(stack: Stack) -> None:
    page = await stack.http.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in page.text.replace("<!DOCTYPE html>", "")
    for reference in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
        path = next(part for part in page.text.split('"') if part.endswith(reference))
        asset = await stack.http.get(path)
        assert asset.status_code == 200
        assert "immutable" in asset.headers["cache-control"]
    assert (await stack.http.get("/docs/start.js")).text.count("/openapi.json") == 1
    assert (await stack.http.get("/docs/5.35.0/..%2f..%2fconfig.py")).status_code == 404
