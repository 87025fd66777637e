"""Registration, as a device sees it: the whole path through the three services."""

import re
from typing import Any

import trustme

from tests.stack import Stack

# The answer to the note's own curl, without its random values.
EXPECTED = {
    "uuid": "test-device-123",
    "deviceName": "Test Device",
    "deviceType": "raspberry-pi-4",
    "fleetId": "demo",
}
EXPECTED_MQTT = {
    "username": "device_test-device-123",
    "broker": "mqtt://localhost:5883",
    "brokerConfig": {
        "protocol": "mqtt",
        "host": "localhost",
        "port": 5883,
        "useTls": False,
        "verifyCertificate": True,
        "clientIdPrefix": "mooring",
        "keepAlive": 60,
        "cleanSession": True,
        "reconnectPeriod": 1000,
        "connectTimeout": 30000,
    },
    "topics": {
        "publish": ["iot/device/test-device-123/#"],
        "subscribe": ["iot/device/test-device-123/#"],
    },
    "source": "default",
    "refreshAfter": 3600,
}


def identity(response: Any) -> tuple[Any, ...]:
    body = response.json()
    return body["id"], body["createdAt"], body["mqtt"]["username"], body["mqtt"]["password"]


async def provisioned(stack: Stack) -> int:
    rows = stack.database.execute("SELECT sum(devices_provisioned)::int FROM provisioning_keys")
    return int(rows[0][0])


async def test_the_answer_to_the_notes_curl_has_every_field(stack: Stack) -> None:
    response = await stack.register()
    assert response.status_code == 201
    body = response.json()
    mqtt = body.pop("mqtt")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", body.pop("createdAt"))
    assert isinstance(body.pop("id"), int)
    assert body == EXPECTED
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", mqtt.pop("password"))
    assert re.fullmatch(r"[0-9a-f]{16}", mqtt.pop("generation"))
    assert mqtt == EXPECTED_MQTT


async def test_no_secret_is_stored_in_plain(stack: Stack) -> None:
    password = (await stack.register()).json()["mqtt"]["password"]
    tables = stack.database.execute(
        "SELECT string_agg(d::text, '')"
        " || (SELECT string_agg(k::text, '') FROM provisioning_keys k)"
        " || (SELECT string_agg(t::text, '') FROM api_tokens t) FROM devices d"
    )[0][0]
    for secret in (password, "test-api-key", stack.provisioning_key, stack.admin_token):
        assert secret not in tables
        assert secret.encode().hex() not in tables


async def test_registering_again_gives_the_same_identity_and_is_not_counted(stack: Stack) -> None:
    first = await stack.register()
    again = await stack.register()
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert await provisioned(stack) == 1


async def test_a_single_use_key_serves_its_device_again_and_no_other(stack: Stack) -> None:
    key = await stack.create_key(max_devices=1)
    first = await stack.register("one", key=key)
    assert identity(await stack.register("one", key=key)) == identity(first)
    refused = await stack.register("two", key=key)
    assert (refused.status_code, refused.json()["reason"]) == (403, "PROVISIONING_KEY_USED_UP")
    assert await provisioned(stack) == 1


async def test_an_expired_key_serves_its_device_again_and_no_other(stack: Stack) -> None:
    first = await stack.register("one")
    stack.database.execute("UPDATE provisioning_keys SET expires_at = now()")
    assert identity(await stack.register("one")) == identity(first)
    refused = await stack.register("two")
    assert (refused.status_code, refused.json()["reason"]) == (403, "PROVISIONING_KEY_EXPIRED")


async def test_a_revoked_key_serves_no_device(stack: Stack) -> None:
    await stack.register("one")
    keys = (await stack.admin("GET", "/provisioning-keys")).json()["items"]
    revoked = await stack.admin("DELETE", f"/provisioning-keys/{keys[0]['id']}")
    assert revoked.status_code == 204
    for uuid in ("one", "two"):
        refused = await stack.register(uuid)
        assert (refused.status_code, refused.json()["reason"]) == (401, "PROVISIONING_KEY_REVOKED")


async def test_an_unknown_key_is_refused_alike_for_known_and_new_devices(stack: Stack) -> None:
    await stack.register("one")
    for uuid in ("one", "two"):
        refused = await stack.register(uuid, key="mpk_nobody")
        assert (refused.status_code, refused.json()["reason"]) == (401, "PROVISIONING_KEY_UNKNOWN")


async def test_a_deleted_device_gets_another_password_when_it_registers(stack: Stack) -> None:
    first = await stack.register()
    assert (await stack.admin("DELETE", "/devices/test-device-123")).status_code == 204
    anew = await stack.register()
    assert anew.status_code == 201
    assert anew.json()["mqtt"]["password"] != first.json()["mqtt"]["password"]
    assert anew.json()["id"] != first.json()["id"]


async def test_another_device_api_key_is_a_conflict_until_an_administrator_allows_it(
    stack: Stack,
) -> None:
    first = await stack.register()
    taken = await stack.register(deviceApiKey="another-api-key")
    assert (taken.status_code, taken.json()["reason"]) == (409, "DEVICE_TAKEN")
    allowed = await stack.admin(
        "PATCH", "/devices/test-device-123", json={"reprovisioning_allowed": True}
    )
    assert allowed.status_code == 200

    renewed = await stack.register(deviceApiKey="another-api-key")
    assert renewed.status_code == 200
    assert renewed.json()["id"] == first.json()["id"]
    assert renewed.json()["mqtt"]["password"] != first.json()["mqtt"]["password"]
    assert identity(await stack.register(deviceApiKey="another-api-key")) == identity(renewed)
    assert (await stack.register()).json()["reason"] == "DEVICE_TAKEN"
    assert await provisioned(stack) == 1


async def test_a_disabled_device_is_refused_with_that_reason(stack: Stack) -> None:
    await stack.register()
    await stack.admin("PUT", "/devices/test-device-123", json={"is_active": False})
    assert (await stack.register()).json()["reason"] == "DEVICE_DISABLED"
    assert (await stack.connection("test-device-123")).status_code == 403
    reader = "SELECT count(*) FROM mqtt_users UNION ALL SELECT count(*) FROM mqtt_acls"
    assert stack.database.execute(reader, role="mqtt_reader") == [(0,), (0,)]


async def test_brokers_that_read_sql_find_the_device(stack: Stack) -> None:
    password = (await stack.register()).json()["mqtt"]["password"]
    user = stack.database.execute("SELECT * FROM mqtt_users", role="mqtt_reader")
    check = "SELECT encode(sha256((salt || %s)::bytea), 'hex') = password_hash FROM mqtt_users"
    assert user[0][0] == "device_test-device-123"
    assert stack.database.execute(check, password, role="mqtt_reader") == [(True,)]
    acls = "SELECT username, topic, access FROM mqtt_acls"
    assert stack.database.execute(acls, role="mqtt_reader") == [
        ("device_test-device-123", "iot/device/test-device-123/#", 3)
    ]


async def test_what_the_device_reports_is_stored(stack: Stack) -> None:
    said: dict[str, Any] = {
        "applicationId": "app",
        "macAddress": "00:11:22:33:44:55",
        "osVersion": "12",
        "agentVersion": "1.2.3",
        "region": "eu",
        "location": {"latitude": 52.5, "longitude": 13.4},
        "unknownField": {"is": "ignored"},
    }
    assert (await stack.register(**said)).status_code == 201
    device = (await stack.admin("GET", "/devices/test-device-123")).json()
    assert device["mac_address"] == "00:11:22:33:44:55"
    assert device["location"] == {"latitude": 52.5, "longitude": 13.4}
    assert (device["region"], device["os_version"]) == ("eu", "12")


WRONG: list[tuple[str, Any]] = [
    ("uuid", "a/b"),
    ("uuid", "a\n"),
    ("uuid", ""),
    ("uuid", "a" * 65),
    ("deviceName", ""),
    ("deviceName", "a\0b"),
    ("deviceName", "a" * 256),
    ("deviceName", 7),
    ("deviceApiKey", None),
    ("deviceApiKey", "short"),
    ("deviceApiKey", "has a space"),
    ("deviceApiKey", "schlüssel"),
    ("location", {"latitude": 91, "longitude": 0}),
    ("location", {"latitude": 1}),
]


async def test_a_wrong_field_is_named(stack: Stack) -> None:
    for field, value in WRONG:
        body = {"uuid": "one", field: value}
        refused = await stack.register(**body)
        assert refused.status_code == 422, (field, value, refused.text)
        assert refused.json()["field"].startswith(field)
    assert stack.database.execute("SELECT count(*) FROM devices") == [(0,)]


async def test_the_current_connection_has_an_etag(stack: Stack) -> None:
    registered = (await stack.register()).json()["mqtt"]
    response = await stack.connection("test-device-123")
    assert response.status_code == 200
    assert response.json() == registered
    etag = response.headers["ETag"]
    unchanged = await stack.connection("test-device-123", **{"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["ETag"] == etag

    other_id = await stack.create_broker("Other", host="other.example.com")
    await stack.admin("PUT", "/devices/test-device-123", json={"mqtt_broker_id": other_id})
    moved = await stack.connection("test-device-123", **{"If-None-Match": etag})
    assert moved.status_code == 200
    assert moved.json()["broker"] == "mqtt://other.example.com:1883"
    # For another broker the device gets another password.
    assert moved.json()["password"] != registered["password"]


async def test_a_connection_is_for_its_device_only(stack: Stack) -> None:
    await stack.register("one")
    await stack.register("two", deviceApiKey="two-has-this")
    for uuid, api_key in (("one", "two-has-this"), ("nobody", "test-api-key")):
        refused = await stack.connection(uuid, api_key)
        assert (refused.status_code, refused.json()["reason"]) == (401, "DEVICE_UNAUTHENTICATED")


async def test_the_notified_broker_is_in_the_devices_row(stack: Stack) -> None:
    notified = "SELECT told_broker_ids, told_at, updated_at, told_source, told_ca_ids FROM devices"
    await stack.register()
    first = stack.database.execute(notified)[0]
    assert (first[0], first[3], first[4]) == ([stack.default_broker_id], "default", [])
    await stack.connection("test-device-123")
    await stack.register()
    assert stack.database.execute(notified)[0] == first

    pem = trustme.CA().cert_pem.bytes().decode()
    other_id = await stack.create_broker("Other", protocol="mqtts", ca_cert=pem)
    await stack.admin("PUT", "/devices/test-device-123", json={"mqtt_broker_id": other_id})
    assert stack.database.execute(notified)[0][0] == [stack.default_broker_id]
    await stack.connection("test-device-123")
    later = stack.database.execute(notified)[0]
    [(ca_id,)] = stack.database.execute("SELECT id FROM certificates")
    assert (later[0], later[3], later[4]) == ([other_id], "device", [ca_id])
    assert later[1] > first[1]


async def test_another_source_of_the_same_broker_is_noted(
    stack: Stack,
) -> None:
    notified = "SELECT told_broker_ids, told_source FROM devices"
    await stack.register()
    assert stack.database.execute(notified) == [([stack.default_broker_id], "default")]
    await stack.admin("PATCH", "/fleets/demo", json={"mqtt_broker_id": stack.default_broker_id})
    await stack.register()
    assert stack.database.execute(notified) == [([stack.default_broker_id], "fleet")]
    stack.database.execute("UPDATE devices SET reprovisioning_allowed = true, told_source = ''")
    await stack.register(deviceApiKey="another-api-key")
    assert stack.database.execute(notified) == [([stack.default_broker_id], "fleet")]
