"""The access listener, which brokers ask about clients, on a real database."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import bcrypt
import psycopg
import pytest

from chassis.database import engine_of
from registry_service.admission.change_store import ChangeStore
from registry_service.admission.listener import slow_passwords
from registry_service.passwords import Password, is_password
from tests.brokers import Asking, asking, secret_of
from tests.integration.registry_service.administration.test_import import MOSQUITTO, imported, row
from tests.integration.registry_service.provisioning.test_device_handler import (
    line_to,
    nothing_goes_wrong,
    request,
    until,
)
from tests.stack import PATIENCE_S, Stack


@pytest.fixture
async def brokers(stack: Stack) -> AsyncIterator[Asking]:
    async with asking(stack) as running:
        yield running


async def registered(stack: Stack, uuid: str) -> dict[str, Any]:
    mqtt: dict[str, Any] = (await stack.register(uuid)).json()["mqtt"]
    return mqtt


async def test_a_device_is_admitted_with_its_own_topics(brokers: Asking) -> None:
    mqtt = await registered(brokers.stack, "one")
    username, password = mqtt["username"], mqtt["password"]
    for _ in range(2):  # from the database, then from the cache
        answer = await brokers.emqx(
            "authenticate", username=username, password=password, clientid="mooring-one"
        )
        found = answer.json()
        assert (found["result"], found["is_superuser"]) == ("allow", False)
        assert [rule["topic"] for rule in found["acl"] if rule["permission"] == "allow"] == [
            "iot/device/one/#"
        ] * 2
        for action in ("publish", "subscribe"):
            assert await brokers.may(action, username, "iot/device/one/temperature")
            for topic in ("iot/device/two/x", "iot/device/one+/x", "#", "$SYS/x", "iot/device"):
                assert not await brokers.may(action, username, topic)
        assert await brokers.may("subscribe", username, "iot/device/one/#")
        assert not await brokers.may("subscribe", username, "iot/device/+/#")
        assert not await brokers.may("publish", username, "iot/device/one/#")


async def test_a_client_without_the_right_password_is_denied(brokers: Asking) -> None:
    mqtt = await registered(brokers.stack, "one")
    for username, password in (
        (mqtt["username"], "wrong"),
        (mqtt["username"], ""),
        ("device_other", mqtt["password"]),
        ("one", mqtt["password"]),
        ("", ""),
        ("x" * 70_000, "y" * 70_000),
        ("a\0b", "c\0d"),
        ("device_one\0", mqtt["password"]),
        ("device_'; DROP TABLE devices; --", mqtt["password"]),
    ):
        assert not await brokers.connects(username, password), username[:30]
    assert await brokers.connects(mqtt["username"], mqtt["password"])


async def test_a_client_id_of_another_client_is_denied(brokers: Asking) -> None:
    one = await registered(brokers.stack, "one")
    await registered(brokers.stack, "two")
    for client_id in (
        "mqttjs_1234",
        "",
        "one",
        "device_one",
        "mooring-one",
        "mooring_one",
        "three",
    ):
        assert await brokers.connects(one["username"], one["password"], client_id), client_id
        assert await brokers.connects(one["username"], one["password"], client_id), client_id
    # A client id that belongs to no device belongs to the client that connected with it first.
    four = await registered(brokers.stack, "four")
    assert not await brokers.connects(four["username"], four["password"], "mqttjs_1234")
    assert await brokers.connects(four["username"], four["password"], "mqttjs_5678")
    for client_id in ("two", "device_two", "mooring-two", "mooring_two"):
        assert not await brokers.connects(one["username"], one["password"], client_id), client_id


async def test_a_client_id_goes_to_the_device_that_registers_under_it_later(
    brokers: Asking,
) -> None:
    stack = brokers.stack
    one = await registered(stack, "one")
    assert await brokers.connects(one["username"], one["password"], "two")
    two = await registered(stack, "two")
    assert await brokers.connects(two["username"], two["password"], "two")
    async with asyncio.timeout(8):
        while await brokers.connects(one["username"], one["password"], "two"):
            await asyncio.sleep(0.05)


async def test_a_client_id_is_free_when_its_session_has_ended(brokers: Asking) -> None:
    one = await registered(brokers.stack, "one")
    two = await registered(brokers.stack, "two")

    async def is_free(client_id: str) -> bool:
        return await brokers.connects(two["username"], two["password"], client_id)

    async def said(hook: str, client_id: str) -> None:
        answer = await brokers.http.post(
            f"/{brokers.secret}/vernemq/webhook",
            json={"client_id": client_id, "mountpoint": ""},
            headers={"vernemq-hook": hook},
        )
        assert answer.json() == {}

    for client_id in ("kept", "emqx-kept", "over"):
        assert await brokers.connects(one["username"], one["password"], client_id)
    # What is queued for a disconnected client may not go to another one.
    await said("on_client_offline", "kept")
    assert not await is_free("kept")
    await said("on_client_gone", "kept")
    assert await is_free("kept")
    named = {"clientid": "emqx-kept", "username": one["username"]}
    await brokers.emqx("event", event="client.connected", expiry_interval=60, **named)
    await brokers.emqx("event", event="client.disconnected", **named)
    assert not await is_free("emqx-kept")
    # A client whose access has ended has no session.
    assert not await is_free("over")
    brokers.stack.database.execute("UPDATE devices SET is_active = false WHERE uuid = 'one'")
    async with asyncio.timeout(8):
        while not await is_free("over"):
            await asyncio.sleep(0.05)


async def test_a_device_is_admitted_only_by_the_broker_of_its_last_answer(brokers: Asking) -> None:
    """The broker before admits it until the device has been answered with the new one."""
    stack = brokers.stack
    mqtt = await registered(stack, "one")
    other_id = await stack.create_broker("Other", host="other.example.com")
    other = secret_of(stack, other_id)
    login = mqtt["username"], mqtt["password"]
    await until_known(brokers, other)
    assert await brokers.connects(*login)
    assert not await brokers.connects(*login, secret=other)
    await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": other_id})
    assert await brokers.connects(*login)
    assert not await brokers.connects(*login, secret=other)
    answered = (await stack.connection("one")).json()
    # The new broker admits it at once; the old one may use its cache for a moment.
    assert await brokers.connects(answered["username"], answered["password"], secret=other)
    # The previous password is for the previous broker only.
    assert not await brokers.connects(*login, secret=other)
    assert await brokers.may("publish", login[0], "iot/device/one/x", secret=other)
    async with asyncio.timeout(5):
        while await brokers.connects(*login):
            await asyncio.sleep(0.02)
    assert not await brokers.may("publish", login[0], "iot/device/one/x")


async def until_known(brokers: Asking, secret: str) -> None:
    # Too many wrong secrets are answered 429, until the listener knows the new secret.
    async with asyncio.timeout(PATIENCE_S):
        while (await brokers.emqx("authenticate", secret)).status_code in (401, 429):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", ["disable", "delete", "fleet"])
async def test_access_that_has_ended_is_denied_at_once(brokers: Asking, way: str) -> None:
    stack = brokers.stack
    mqtt = await registered(stack, "one")
    login = mqtt["username"], mqtt["password"]
    assert await brokers.connects(*login)
    assert await brokers.connects(*login)
    loop = asyncio.get_running_loop()
    if way == "disable":
        await stack.admin("PATCH", "/devices/one", json={"is_active": False})
    elif way == "delete":
        await stack.admin("DELETE", "/devices/one")
    else:
        stack.database.execute("UPDATE fleets SET is_active = false")
    ended = loop.time()
    async with asyncio.timeout(5):
        while await brokers.connects(*login):
            await asyncio.sleep(0)
    # The change was announced; otherwise the cache would be used for longer.
    assert loop.time() - ended < 0.2
    assert not await brokers.may("publish", login[0], "iot/device/one/x")


async def test_the_cache_is_not_used_when_changes_cannot_be_read(brokers: Asking) -> None:
    stack = brokers.stack
    mqtt = await registered(stack, "one")
    login = mqtt["username"], mqtt["password"]
    assert await brokers.connects(*login)
    stack.database.execute("REVOKE SELECT ON access_changes FROM mooring_access")
    stack.database.execute("UPDATE devices SET is_active = false")
    async with asyncio.timeout(8):
        while await brokers.connects(*login):
            await asyncio.sleep(0.05)
    assert (await brokers.http.get("/readyz")).status_code == 503
    stack.database.execute("GRANT SELECT ON access_changes TO mooring_access")
    async with asyncio.timeout(8):
        while (await brokers.http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)


async def test_nothing_is_answered_without_a_brokers_secret(brokers: Asking) -> None:
    mqtt = await registered(brokers.stack, "one")
    body = {"username": mqtt["username"], "password": mqtt["password"], "clientid": "c"}
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": mqtt["password"]},
        {"Authorization": brokers.secret},
    ):
        answer = await brokers.http.post("/emqx/authenticate", json=body, headers=headers)
        assert (answer.status_code, "allow" in answer.text) == (401, False)
    for path in ("/emqx", "/emqx/other", "/", "//", f"/{brokers.secret}/emqx", "/a/b/c/d"):
        assert (await brokers.http.post(path, json=body)).status_code == 404, path
    path = f"/{brokers.secret}/emqx/authenticate"
    assert (await brokers.http.post(path, json=body)).json()["result"] == "allow"
    assert (await brokers.http.put(path, json=body)).status_code == 405
    headers = {"Authorization": f"bearer {brokers.secret}"}
    answer = await brokers.http.post("/emqx/authenticate", json=body, headers=headers)
    assert answer.json()["result"] == "allow"


async def test_unusual_requests_get_the_right_status(
    brokers: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    secret = f"Authorization: Bearer {brokers.secret}"
    with nothing_goes_wrong(caplog):
        for method, path, status in (
            ("GET", "http://h", 404),
            ("GET", "http://h/healthz", 200),
            ("GET", "/healthz?x", 200),
            ("HEAD", "/healthz", 200),
            ("HEAD", "/emqx/authenticate", 405),
            ("POST", "//emqx/authenticate", 404),
            ("POST", "/emqx/authenticate/", 404),
            ("POST", "/emqx/authenticate?x", 200),
            ("POST", "/%65mqx/authenticate", 200),
        ):
            async with line_to(brokers.url) as line:
                answer = await line.ask(request(method, path, secret), to=method)
                assert answer.status == status, path
        long = "Content-Length: 3000000", "Expect: 100-continue", secret
        async with line_to(brokers.url) as line:
            answer = await line.ask(request("POST", "/emqx/authenticate", *long))
            assert json.loads(answer.body) == {"result": "deny"}


async def test_connections_are_noted_in_the_devices_row(brokers: Asking) -> None:
    stack = brokers.stack
    mqtt = await registered(stack, "one")
    assert await brokers.connects(mqtt["username"], mqtt["password"], "c-1")
    monitoring = "SELECT d.uuid FROM devices d WHERE d.is_online = true"

    async def online(event: str, expected: list[Any], **named: str) -> None:
        await brokers.emqx("event", event=event, clientid="c-1", **named)
        async with asyncio.timeout(10):
            while stack.database.execute(monitoring) != expected:
                await asyncio.sleep(0.05)

    await online("client.connected", [("one",)], username=mqtt["username"])
    # This event has the client id, and no username.
    await online("client.disconnected", [])
    [(seen,)] = stack.database.execute("SELECT last_seen_at IS NOT NULL FROM devices")
    assert seen


async def test_two_hundred_clients_are_asked_about_at_once(brokers: Asking) -> None:
    uuids = [f"d{n}" for n in range(200)]
    answers = await asyncio.gather(*(registered(brokers.stack, uuid) for uuid in uuids))
    logins = [(mqtt["username"], mqtt["password"]) for mqtt in answers]
    right = await asyncio.gather(*(brokers.connects(*login) for login in logins))
    assert right == [True] * 200
    crossed = zip(logins, logins[1:] + logins[:1], strict=True)
    wrong = await asyncio.gather(
        *(brokers.connects(name, password) for (name, _), (_, password) in crossed)
    )
    assert wrong == [False] * 200


async def test_each_dialect_is_answered_in_its_own_form(brokers: Asking) -> None:
    mqtt = await registered(brokers.stack, "one")
    username, password = mqtt["username"], mqtt["password"]
    base = f"/{brokers.secret}"

    async def says(path: str, hook: str = "", **body: Any) -> tuple[int, Any]:
        headers = {"vernemq-hook": hook} if hook else {}
        answer = await brokers.http.post(f"{base}{path}", json=body, headers=headers)
        return answer.status_code, answer.json()

    # In mosquitto-go-auth the status decides.
    login = {"username": username, "password": password, "clientid": "c"}
    assert (await says("/mosquitto/user", **login))[0] == 200
    assert (await says("/mosquitto/user", **{**login, "password": "wrong"}))[0] == 403
    assert (await says("/mosquitto/superuser", username=username))[0] == 403
    own = {"username": username, "clientid": "c", "topic": "iot/device/one/x", "acc": 2}
    assert (await says("/mosquitto/acl", **own))[0] == 200
    assert (await says("/mosquitto/acl", **{**own, "topic": "iot/device/two/x"}))[0] == 403
    assert (await says("/mosquitto/acl", **{**own, "topic": "iot/device/+/x", "acc": 4}))[0] == 403
    # In VerneMQ the result decides.
    register = {
        "peer_addr": "127.0.0.1",
        "peer_port": 8888,
        "username": username,
        "password": password,
        "mountpoint": "",
        "client_id": "c",
        "clean_session": False,
    }
    assert (await says("/vernemq/webhook", "auth_on_register", **register))[1]["result"] == "ok"
    wrong = {**register, "password": "wrong"}
    _, answer = await says("/vernemq/webhook", "auth_on_register", **wrong)
    assert "error" in answer["result"]
    subscribe = {
        "client_id": "c",
        "mountpoint": "",
        "username": username,
        "topics": [
            {"topic": "iot/device/one/#", "qos": 1},
            {"topic": "iot/device/two/#", "qos": 1},
        ],
    }
    _, answer = await says("/vernemq/webhook", "auth_on_subscribe", **subscribe)
    assert answer["topics"] == [
        {"topic": "iot/device/one/#", "qos": 1},
        {"topic": "iot/device/two/#", "qos": 128},
    ]


async def test_no_request_of_a_broker_is_a_server_error(brokers: Asking) -> None:
    for dialect, operation in (
        ("emqx", "authenticate"),
        ("emqx", "authorize"),
        ("emqx", "event"),
        ("rabbitmq", "user"),
        ("rabbitmq", "topic"),
        ("mosquitto", "user"),
        ("mosquitto", "acl"),
        ("vernemq", "webhook"),
    ):
        path = f"/{brokers.secret}/{dialect}/{operation}"
        for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
            for body in (b"", b"\xff\xfe", b"\0" * 100, b"{" * 10_000, b'"x"', b"a=1&a=2", b"[]"):
                answer = await brokers.http.post(
                    path, content=body, headers={"Content-Type": kind, "vernemq-hook": "x"}
                )
                assert answer.status_code < 500, (path, kind, body)
                assert answer.text.count("allow") == answer.text.count("not_allowed")
        large = await brokers.http.post(path, content=b"x" * 3_000_000)
        assert large.status_code < 500


async def test_old_changes_are_deleted(stack: Stack) -> None:
    for uuid in ("old", "new"):
        await registered(stack, uuid)
        await stack.admin("PATCH", f"/devices/{uuid}", json={"is_active": False})
    old = "UPDATE access_changes SET at = now() - interval '11 minutes' WHERE usernames = %s"
    stack.database.execute(old, ["device_old"])
    engine = engine_of(stack.database.url("mooring_registry"), pool_size=1)
    await ChangeStore(engine).forget()
    await engine.dispose()
    left = stack.database.execute("SELECT DISTINCT usernames FROM access_changes")
    assert left == [(["device_new"],)]
    # The listener's role can change nothing but the notes about connections.
    for statement in ("DELETE FROM access_changes", "UPDATE devices SET is_active = true"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            stack.database.execute(statement, role="mooring_access")


async def test_an_imported_password_is_accepted_too(brokers: Asking) -> None:
    slow = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    at = {"mqtt_broker_id": brokers.stack.default_broker_id}
    await imported(
        brokers.stack,
        [
            row("one", mqtt_username="one", password_hash=slow, **at),
            row("two", mqtt_username="two", password_hash=MOSQUITTO, **at),
        ],
    )
    for username in ("one", "two"):
        for _ in range(2):
            assert not await brokers.connects(username, "wrong")
            assert await brokers.connects(username, "secret")
    many = await asyncio.gather(*(brokers.connects("one", f"{n}") for n in range(40)))
    assert many == [False] * 40
    assert await brokers.connects("one", "secret")


async def test_access_that_ends_during_a_password_check_is_denied(
    brokers: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = {"mqtt_broker_id": brokers.stack.default_broker_id}
    await imported(brokers.stack, [row("one", mqtt_username="one", password_hash=MOSQUITTO, **at)])
    is_checked, may_end = threading.Event(), threading.Event()

    def slowly(kept: Password, shown: str) -> bool:
        is_checked.set()
        return may_end.wait(PATIENCE_S) and is_password(kept, shown)

    monkeypatch.setattr(slow_passwords, "is_password", slowly)
    asked = asyncio.create_task(brokers.connects("one", "secret"))
    assert await asyncio.to_thread(is_checked.wait, PATIENCE_S)
    brokers.stack.database.execute("UPDATE devices SET is_active = false")
    may_end.set()
    assert not await asked


async def test_one_question_may_name_500_topics(brokers: Asking) -> None:
    mqtt = await registered(brokers.stack, "one")

    async def subscribed(count: int) -> Any:
        topics = [{"topic": f"iot/device/one/{n}", "qos": 0} for n in range(count)]
        answer = await brokers.http.post(
            f"/{brokers.secret}/vernemq/webhook",
            json={"username": mqtt["username"], "client_id": "c", "topics": topics},
            headers={"vernemq-hook": "auth_on_subscribe"},
        )
        return answer.json()["result"]

    for _ in range(2):  # from the database, then from the cache
        assert await subscribed(500) == "ok"
    assert await subscribed(501) == {"error": "not_allowed"}


async def test_unwritten_notes_are_written_when_it_stops(stack: Stack) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'devices'::regclass AND NOT granted"
    mqtt = await registered(stack, "one")
    async with contextlib.AsyncExitStack() as until_stopped:
        brokers = await until_stopped.enter_async_context(asking(stack))
        assert await brokers.connects(mqtt["username"], mqtt["password"])
        with psycopg.connect(stack.database.url("mooring")) as other:
            other.execute("LOCK TABLE devices IN ACCESS EXCLUSIVE MODE")
            await until(lambda: stack.database.execute(waiting) != [(0,)])
            stopping = asyncio.create_task(until_stopped.aclose())
            # The write that was under way is given up, and another one waits for the lock.
            await asyncio.wait([stopping], timeout=0.5)
            other.rollback()
        await stopping
    assert stack.database.execute("SELECT last_seen_at IS NOT NULL FROM devices") == [(True,)]
    assert stack.database.execute("SELECT kind FROM device_events") == [("connected",)]


@pytest.mark.parametrize("is_abrupt", [False, True])
async def test_a_broker_may_disconnect_while_it_waits(
    brokers: Asking, caplog: pytest.LogCaptureFixture, is_abrupt: bool
) -> None:
    stack = brokers.stack
    mqtt = await registered(stack, "one")
    topics = [{"topic": f"iot/device/one/{n}", "qos": 0} for n in range(2)]
    credentials = {"username": mqtt["username"], "password": mqtt["password"], "clientid": "c"}
    subscriptions = {"username": mqtt["username"], "client_id": "c", "topics": topics}
    headers = f"Authorization: Bearer {brokers.secret}", "Content-Type: application/json"
    hook = "vernemq-hook: auth_on_subscribe"
    one = request("POST", "/emqx/authenticate", *headers, body=json.dumps(credentials).encode())
    several = request(
        "POST", "/vernemq/webhook", *headers, hook, body=json.dumps(subscriptions).encode()
    )
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'devices'::regclass AND NOT granted"
    with (
        nothing_goes_wrong(caplog),
        psycopg.connect(stack.database.url("mooring")) as other,
    ):
        async with line_to(brokers.url) as staying:
            other.execute("LOCK TABLE devices IN ACCESS EXCLUSIVE MODE")
            for count, asked in enumerate((one, several), 1):
                async with line_to(brokers.url) as leaving:
                    await leaving.send(asked)
                    await until(lambda: stack.database.execute(waiting)[0][0] >= count)  # noqa: B023
                    if is_abrupt:
                        leaving.break_off()
            await staying.send(one, several)
            other.rollback()
            assert json.loads((await staying.answer()).body)["result"] == "allow"
            assert json.loads((await staying.answer()).body) == {"result": "ok"}
