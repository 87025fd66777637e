"""What happened to a device: through a gateway, the services and brokers that ask."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from mooring.registry.v1 import registration_pb2, tokens_pb2

import gateway.__main__
from registry_service.activity import recording
from tests.brokers import Asking, asking, secret_of
from tests.integration.registry_service.admission.listener.test_access import until_known
from tests.stack import PATIENCE_S, Stack

POLL_S = 0.02
Timeline = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are written at once, so that a test does not wait for seconds."""
    monkeypatch.setattr(recording, "EVENTS_EVERY_S", 0.05)


@pytest.fixture
async def brokers(stack: Stack) -> AsyncIterator[Asking]:
    async with asking(stack) as running:
        yield running


async def shown(stack: Stack, uuid: str = "one", token: str = "") -> dict[str, Any]:
    answer = await stack.http.get(
        f"/api/v1/devices/{uuid}/timeline",
        headers={"Authorization": f"Bearer {token or stack.admin_token}"},
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    moments = [item["at"] for item in found["items"]]
    assert moments == sorted(moments, reverse=True)
    return found


async def until(
    stack: Stack, is_there: Callable[[Timeline], bool], uuid: str = "one", token: str = ""
) -> Timeline:
    found: Timeline = []
    async with asyncio.timeout(PATIENCE_S):
        while not is_there(found):
            await asyncio.sleep(POLL_S)
            found = (await shown(stack, uuid, token))["items"]
    return found


def kinds(found: Timeline) -> Counter[str]:
    return Counter(item["kind"] for item in found)


def only(found: Timeline, kind: str) -> dict[str, Any]:
    [item] = [item for item in found if item["kind"] == kind]
    return item


async def token_of(stack: Stack, *fleets: str) -> str:
    request = tokens_pb2.CreateTokenRequest(
        name="viewer",
        role=tokens_pb2.ROLE_VIEWER,
        fleets=tokens_pb2.TokenFleets(ids=fleets) if fleets else None,
    )
    return str((await stack.registry.tokens("CreateToken", request)).secret)


async def test_a_devices_life_is_in_its_timeline(brokers: Asking) -> None:
    stack = brokers.stack
    mqtt = (await stack.register("one")).json()["mqtt"]
    assert [item["kind"] for item in (await shown(stack))["items"]] == ["registered"]
    # Again is no news.
    assert (await stack.register("one")).status_code == 200

    assert (await stack.register("one", deviceApiKey="another-api-key")).status_code == 409
    for _ in range(3):
        assert (await stack.connection("one", "not-its-api-key")).status_code == 401
    login = {"username": mqtt["username"], "password": mqtt["password"], "clientid": "one"}
    for _ in range(2):
        answer = await brokers.emqx("authenticate", **login, peerhost="192.0.2.9")
        assert answer.json()["result"] == "allow"
    assert not await brokers.connects(mqtt["username"], "not its password")
    other_id = await stack.create_broker("Other", host="other.example.com")
    pinned = await stack.admin("PATCH", "/devices/one", json={"mqtt_broker_id": other_id})
    assert pinned.status_code == 200
    moved = (await stack.connection("one")).json()
    rotate = await stack.http.post(
        "/api/v1/device/one/credentials/rotate", headers={"Authorization": "Bearer test-api-key"}
    )
    assert rotate.status_code == 200
    revoked = await stack.admin("POST", "/devices/one/credentials/revoke")
    assert revoked.status_code == 204

    viewer = await token_of(stack)
    expected = {
        "registered": 1,
        "registration_refused": 1,
        "settings_refused": 1,
        "connected": 1,
        "connect_refused": 1,
        "answer_changed": 1,
        "credentials_rotated": 1,
        "credentials_revoked": 1,
    }
    found = await until(stack, lambda found: kinds(found) == expected, token=viewer)
    taken = only(found, "registration_refused")
    assert (taken["reason"], taken["address"]) == ("DEVICE_TAKEN", "127.0.0.1")
    wrong = only(found, "settings_refused")
    assert (wrong["reason"], wrong["address"]) == ("DEVICE_UNAUTHENTICATED", "127.0.0.1")
    assert (wrong["count"], wrong["first_at"] <= wrong["at"]) == (3, True)
    changed = only(found, "answer_changed")
    assert changed["before"] == {"broker_ids": [stack.default_broker_id], "source": "default"}
    assert changed["after"] == {"broker_ids": [other_id], "source": "device"}
    assert changed["generation"] == moved["generation"]
    connected, refused = only(found, "connected"), only(found, "connect_refused")
    assert connected["broker_id"] == refused["broker_id"] == stack.default_broker_id
    assert (connected["count"], connected["address"]) == (2, "192.0.2.9")
    assert (refused["reason"], refused["address"]) == ("PASSWORD_WRONG", None)
    # A password with another broker is another one; asking for one is the second time.
    assert only(found, "credentials_rotated")["count"] == 2
    assert only(found, "credentials_revoked")["actor"] is None

    of_admin = (await shown(stack))["items"]
    assert kinds(of_admin) == {**expected, "changed": 1}
    update = only(of_admin, "changed")
    assert (update["actor"], update["action"]) == ("tests", "device.update")
    assert update["changed_from"] == {"mqtt_broker_id": None}
    assert update["changed_to"] == {"mqtt_broker_id": other_id}
    assert only(of_admin, "credentials_revoked")["actor"] == "tests"
    text = str(of_admin)
    for secret in (mqtt["password"], moved["password"], "api-key", stack.provisioning_key):
        assert secret not in text


async def test_a_restricted_token_sees_its_devices_only(brokers: Asking) -> None:
    """And no broker of another customer."""
    stack = brokers.stack
    await stack.create_fleet("elsewhere")
    mqtt = (await stack.register("one")).json()["mqtt"]
    other_id = await stack.create_broker("Other", host="other.example.com")
    other = secret_of(stack, other_id)
    await until_known(brokers, other)
    assert not await brokers.connects(mqtt["username"], mqtt["password"], secret=other)
    assert await brokers.connects(mqtt["username"], mqtt["password"])
    expected = {"registered": 1, "connect_refused": 1, "connected": 1}
    found = await until(stack, lambda found: kinds(found) == expected)
    assert only(found, "connect_refused")["broker_id"] == other_id
    own = await until(
        stack, lambda found: kinds(found) == expected, token=await token_of(stack, "demo")
    )
    assert only(own, "connect_refused")["broker_id"] is None
    assert only(own, "connect_refused")["reason"] == "BROKER_NOT_TOLD"
    assert only(own, "connected")["broker_id"] == stack.default_broker_id
    theirs = await stack.http.get(
        "/api/v1/devices/one/timeline",
        headers={"Authorization": f"Bearer {await token_of(stack, 'elsewhere')}"},
    )
    nobodys = await stack.admin("GET", "/devices/nobody/timeline")
    assert (theirs.status_code, theirs.json()["reason"]) == (404, "DEVICE_NOT_FOUND")
    assert (nobodys.status_code, nobodys.json()["reason"]) == (404, "DEVICE_NOT_FOUND")


async def test_the_address_is_the_one_behind_trusted_proxies(stack: Stack) -> None:
    assert (await stack.register("one")).status_code == 201
    config = stack.gateway_config(trusted_proxies="127.0.0.0/8")
    async with gateway.__main__.running(config) as url:
        for address in ("192.0.2.7", "2001:db8::7", "not an address"):
            headers = {"Authorization": "Bearer wrong-api-key", "X-Forwarded-For": address}
            answer = await stack.http.get(f"{url}/api/v1/device/one/mqtt", headers=headers)
            assert answer.status_code == 401
        found = await until(stack, lambda found: kinds(found)["settings_refused"] == 3)
    addresses = {item["address"] for item in found if item["kind"] == "settings_refused"}
    assert addresses == {"192.0.2.7", "2001:db8::7", "127.0.0.1"}


async def test_a_storm_of_refusals_for_a_device_is_bounded(stack: Stack) -> None:
    """It displaces no other event; what is not written is counted."""
    assert (await stack.register("one")).status_code == 201
    other_id = await stack.create_broker("Other", host="other.example.com")
    await stack.admin("PATCH", "/devices/one", json={"mqtt_broker_id": other_id})
    assert (await stack.connection("one")).status_code == 200
    asked = 0
    for address in range(4):
        requests = [
            registration_pb2.ConnectionRequest(
                uuid="one",
                device_api_key="wrong-api-key",
                source_address=f"192.0.{address}.{n}",
            )
            for n in range(250)
        ]
        asked += len(requests)
        await stack.registry.registration(
            "GetConnections", registration_pb2.GetConnectionsRequest(requests=requests)
        )

    def settled(found: Timeline) -> bool:
        return kinds(found)["settings_refused"] == 25 and kinds(found)["answer_changed"] == 1

    await until(stack, settled)
    async with asyncio.timeout(PATIENCE_S):
        while (dropped := (await shown(stack))["dropped"]) < asked - 4 * 25 * 2:
            await asyncio.sleep(POLL_S)
    assert dropped <= asked - 25
    [(rows, devices)] = stack.database.execute(
        "SELECT count(*), count(DISTINCT device_id) FROM device_events WHERE kind <> 'dropped'"
    )
    assert (rows <= 28, devices) == (True, 1)
    # Other devices are not in the way.
    assert (await shown(stack))["items"][-1]["kind"] == "registered"


async def test_a_deleted_device_leaves_nothing_behind(stack: Stack) -> None:
    assert (await stack.register("one")).status_code == 201
    await stack.connection("one", "not-its-api-key")
    await until(stack, lambda found: kinds(found)["settings_refused"] == 1)
    assert (await stack.admin("DELETE", "/devices/one")).status_code == 204
    assert stack.database.execute("SELECT count(*) FROM device_events") == [(0,)]
    # One that takes the uuid has a timeline of its own.
    assert (await stack.register("one")).status_code == 201
    found = (await shown(stack))["items"]
    assert [item["kind"] for item in found] == ["registered"]
