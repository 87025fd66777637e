"""The import of a fleet from another system: its brokers, its devices and their passwords."""

import base64
import hashlib
import json
from typing import Any

import httpx2
from mooring.registry.v1 import fleets_pb2, provisioning_keys_pb2, registration_pb2

from tests.stack import Stack

# What mosquitto_passwd made of "secret" for the user "one".
SALT, ITERATIONS = b"0123456789ab", 101
DERIVED = hashlib.pbkdf2_hmac("sha512", b"secret", SALT, ITERATIONS)
MOSQUITTO = "$".join(
    ("", "7", str(ITERATIONS), base64.b64encode(SALT).decode(), base64.b64encode(DERIVED).decode())
)
BCRYPT = "$2b$12$" + "a" * 53
HEX = hashlib.sha256(b"salt" + b"secret").hexdigest()


async def send(
    stack: Stack, what: str, content: str, *, kind: str = "text/csv", query: str = ""
) -> httpx2.Response:
    return await stack.http.post(
        f"/api/v1/{what}/import{query}",
        content=content.encode(),
        headers={"Authorization": f"Bearer {stack.admin_token}", "Content-Type": kind},
    )


async def imported(
    stack: Stack, rows: list[dict[str, Any]], *, what: str = "devices", query: str = ""
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """The outcome or the reason of each row with its column, and the last line."""
    content = "\n".join(map(json.dumps, rows))
    answer = await send(stack, what, content, kind="application/x-ndjson", query=query)
    assert answer.status_code == 200, answer.text
    *lines, end = map(json.loads, answer.text.splitlines())
    assert [line["line"] for line in lines] == list(range(1, len(rows) + 1))
    return [(line.get("reason", line["outcome"]), line.get("field", "")) for line in lines], end


def row(uuid: str, **columns: Any) -> dict[str, Any]:
    return {"uuid": uuid, "fleet_id": "demo", **columns}


async def test_a_fleet_is_imported_from_csv(stack: Stack) -> None:
    brokers = await send(stack, "brokers", "name,host,port\nCloud,mqtt.example.com,1883\n")
    assert json.loads(brokers.text.splitlines()[-1])["created"] == 1
    file = (
        "uuid,fleet_id,mqtt_username,password_hash,password_salt,password_algorithm,broker\n"
        f"one,demo,one,{MOSQUITTO},,,Cloud\n"
        f"two,demo,two,{BCRYPT},,,\n"
        f"three,demo,three,{HEX},salt,sha256,\n"
        "four,demo,,,,,\n"
    )
    answer = await send(stack, "devices", file)
    assert [json.loads(line).get("outcome") for line in answer.text.splitlines()] == [
        *["created"] * 4,
        None,
    ]
    # Brokers that read SQL still admit the devices; none without a password is in the view.
    users = stack.database.execute(
        "SELECT username, password_hash, salt, algorithm FROM mqtt_users ORDER BY 1",
        role="mqtt_reader",
    )
    assert users == [
        ("one", MOSQUITTO, "", "mosquitto_pbkdf2"),
        ("three", HEX, "salt", "sha256"),
        ("two", BCRYPT, "", "bcrypt"),
    ]
    device = (await stack.admin("GET", "/devices/one")).json()
    assert (device["mqtt_username"], device["provisioned_by_key_id"]) == ("one", None)
    assert (device["told_broker_ids"], device["provisioned_at"]) == ([], None)
    assert (await stack.admin("GET", f"/brokers/{device['mqtt_broker_id']}")).json()[
        "name"
    ] == "Cloud"


async def test_an_imported_device_registers_once_and_is_like_any_other(stack: Stack) -> None:
    await stack.create_fleet("other")
    other = await stack.create_key(fleet_id="other")
    only_expected = await stack.create_key(
        restrictions=provisioning_keys_pb2.Restrictions(only_expected=True)
    )
    broker_id = await stack.create_broker("Cloud")
    await imported(
        stack,
        [row("one", mqtt_username="one", password_hash=MOSQUITTO, mqtt_broker_id=broker_id)],
    )
    assert (await stack.connection("one")).status_code == 401
    assert (await stack.register("one", key=other)).json()["reason"] == "DEVICE_TAKEN"

    registered = await stack.register("one", key=only_expected)
    assert registered.status_code == 200, registered.text
    mqtt = registered.json()["mqtt"]
    assert (mqtt["username"], mqtt["source"]) == ("device_one", "device")
    assert (await stack.connection("one")).json()["password"] == mqtt["password"]
    # Its password was made by Mooring, and the imported one is stored nowhere.
    [(username, kept, salt, algorithm)] = stack.database.execute(
        "SELECT username, password_hash, salt, algorithm FROM mqtt_users"
    )
    ours = hashlib.sha256((salt + mqtt["password"]).encode()).hexdigest()
    assert (username, kept, algorithm) == ("device_one", ours, "sha256")
    # The key has not counted the device, and a client with another API key is refused.
    assert (await stack.register("one", deviceApiKey="somebody-else")).status_code == 409
    again = await stack.register("one", key=only_expected)
    assert again.json()["mqtt"]["password"] == mqtt["password"]
    made = "SELECT sum(devices_provisioned) FROM provisioning_keys"
    assert stack.database.execute(made) == [(0,)]
    # Importing it again changes nothing.
    outcomes, _ = await imported(stack, [row("one", mqtt_username="x", password_hash=BCRYPT)])
    assert outcomes == [("existing", "")]


async def test_only_one_of_several_api_keys_claims_an_imported_device(stack: Stack) -> None:
    await imported(stack, [row("one")])
    request = registration_pb2.RegisterDevicesRequest(
        registrations=[
            registration_pb2.Registration(
                provisioning_key=stack.provisioning_key,
                uuid="one",
                device_name="n",
                device_type="t",
                device_api_key=f"an-api-key-{n}",
            )
            for n in range(5)
        ]
    )
    answer = await stack.registry.registration("RegisterDevices", request)
    claimed = [outcome for outcome in answer.outcomes if outcome.HasField("device")]
    assert len(claimed) == 1
    assert {o.error.reason for o in answer.outcomes if o not in claimed} == {"DEVICE_TAKEN"}


async def test_each_row_is_checked_separately(stack: Stack) -> None:
    allowed = fleets_pb2.AllowedBrokers(broker_ids=[stack.default_broker_id])
    await stack.create_fleet("closed", allowed_brokers=allowed)
    broker_id = await stack.create_broker("Cloud")
    await stack.register("registered")
    for uuid, fleet_id in (("elsewhere", "closed"), ("here", "demo")):
        body = {"uuid": uuid, "fleet_id": fleet_id}
        assert (await stack.admin("POST", "/expected-devices", json=body)).status_code == 201
    secret = {"password_hash": BCRYPT}
    rows_and_outcomes: list[tuple[dict[str, Any], tuple[str, str]]] = [
        (row("one", mqtt_username="u", **secret), ("created", "")),
        (row("one"), ("existing", "")),
        (row("registered"), ("existing", "")),
        (row("two", mqtt_username="u", **secret), ("USERNAME_TAKEN", "mqtt_username")),
        (
            row("three", mqtt_username="device_one", **secret),
            ("USERNAME_RESERVED", "mqtt_username"),
        ),
        (row("four", mqtt_username="device_four", **secret), ("created", "")),
        ({"uuid": "five", "fleet_id": "none"}, ("FLEET_UNKNOWN", "fleet_id")),
        (row("six", broker="none"), ("BROKER_UNKNOWN", "broker")),
        (row("six", mqtt_broker_id=999), ("BROKER_UNKNOWN", "broker")),
        (row("six", broker="Cloud", mqtt_broker_id=broker_id), ("INVALID_INPUT", "broker")),
        (
            {"uuid": "seven", "fleet_id": "closed", "broker": "Cloud"},
            ("BROKER_NOT_ALLOWED", "broker"),
        ),
        (row("elsewhere"), ("UUID_RESERVED", "uuid")),
        (row("here"), ("created", "")),
        (row("eight", mqtt_username="x"), ("INVALID_INPUT", "password_hash")),
        (row("eight", password_hash=BCRYPT), ("INVALID_INPUT", "mqtt_username")),
        (row("eight", device_name="a\0b"), ("INVALID_INPUT", "device_name")),
        (row("a/b"), ("INVALID_INPUT", "uuid")),
        (row("eight", latitude=1), ("INVALID_INPUT", "longitude")),
        (row("eight", port=1), ("INVALID_INPUT", "port")),
        (row("last", latitude=1, longitude=2, region="eu"), ("created", "")),
    ]
    rows = [each for each, _ in rows_and_outcomes]
    expected = [outcome for _, outcome in rows_and_outcomes]
    count = "SELECT count(*) FROM devices"
    trial, end = await imported(stack, rows, query="?dry_run=true")
    assert trial == expected
    assert (end["complete"], end["dry_run"], end["created"]) == (True, True, 4)
    assert stack.database.execute(count) == [(1,)]
    outcomes, end = await imported(stack, rows)
    assert outcomes == expected
    sums = {"created": 4, "existing": 2, "refused": 14}
    assert end == {"complete": True, "dry_run": False, **sums}
    assert stack.database.execute(count) == [(5,)]
    expected_here = "SELECT registered_at IS NOT NULL FROM expected_devices WHERE uuid = 'here'"
    assert stack.database.execute(expected_here) == [(True,)]
    # Importing the file again changes nothing, and refuses the same rows.
    again, _ = await imported(stack, rows)
    assert again == [("existing", "") if each == ("created", "") else each for each in expected]
    [(after,)] = stack.database.execute(
        "SELECT after FROM audit_log WHERE action = 'device.import' AND refusal = ''"
    )
    assert after == {"uuids": ["one", "four", "here", "last"]}
    whole_log = str(stack.database.execute("SELECT before, after FROM audit_log"))
    assert BCRYPT not in whole_log


async def test_brokers_are_imported_by_name(stack: Stack) -> None:
    managed = {"management": "emqx", "management_url": "https://h", "username": "u"}
    managed["password"] = "p"
    rows = [
        {"name": "Cloud", "host": "a", "port": 1, "username": "u", "password": "their secret"},
        {"name": "Cloud", "host": "b", "port": 2},
        {"name": "Local Broker", "host": "c", "port": 3},
        {"name": "Broken", "host": "not a host", "port": 3},
        {"name": "Broken\0", "host": "h", "port": 3},
        {"name": "Silent", "host": "h", "port": 1883, "password": "p"},
        {"name": "Ours", "host": "h", "port": 1883, "management": "mosquitto"},
        {"name": "Ours", "host": "h", "port": 1883, **managed},
    ]
    expected = [
        ("created", ""),
        ("existing", ""),
        ("existing", ""),
        ("INVALID_INPUT", "host"),
        ("INVALID_INPUT", "name"),
        ("INVALID_INPUT", "username"),
        ("INVALID_INPUT", "management"),
        ("created", ""),
    ]
    for query, found in (("?dry_run=true", 1), ("", 3)):
        outcomes, end = await imported(stack, rows, what="brokers", query=query)
        assert outcomes == expected
        assert (end["created"], end["existing"], end["refused"]) == (2, 2, 4)
        names = stack.database.execute("SELECT count(*) FROM mqtt_broker_config")
        assert names == [(found,)]
    [cloud] = (await stack.admin("GET", "/brokers?name=Cloud")).json()["items"]
    assert (cloud["host"], cloud["has_password"]) == ("a", True)
    [ours] = (await stack.admin("GET", "/brokers?name=Ours")).json()["items"]
    assert (ours["management"], ours["management_url"]) == ("emqx", "https://h")
    file = "name,host,port,management,management_url,username,password\n"
    file += "Rabbit,h,1883,rabbitmq,https://h,u,p\nNone,h,1883,,,,\n"
    answer = await send(stack, "brokers", file)
    assert json.loads(answer.text.splitlines()[-1])["created"] == 2, answer.text


async def test_a_file_that_is_wrong_as_a_whole_is_refused(stack: Stack) -> None:
    for content, kind, status, reason in (
        ("{}", "application/json", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("uuid\none\n", "text/csv", 422, "INVALID_INPUT"),
        ("uuid,fleet_id,colour\n", "text/csv", 422, "INVALID_INPUT"),
    ):
        answer = await send(stack, "devices", content, kind=kind)
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)


async def test_a_refused_row_names_its_resource_and_the_missing_field(stack: Stack) -> None:
    file = (
        "uuid,fleet_id,latitude,longitude\n"
        "one,demo,52.5,\n"
        "two,demo,,13.4\n"
        "three,demo,north,13.4\n"
        "four,demo\n"
        "AA:BB:CC:DD:EE:FF,demo,,\n"
        ",demo,,\n"
    )
    answer = await send(stack, "devices", file)
    *rows, _ = map(json.loads, answer.text.splitlines())
    assert [(each["subject"], each.get("field", "")) for each in rows] == [
        ("one", "longitude"),
        ("two", "latitude"),
        ("three", "latitude"),
        ("four", ""),
        ("AA:BB:CC:DD:EE:FF", "uuid"),
        ("", "uuid"),
    ]
    assert [each["detail"] for each in rows[:2]] == [
        "is missing: it goes with latitude",
        "is missing: it goes with longitude",
    ]
    assert "AA-BB-CC-DD-EE-FF" in rows[4]["detail"]
