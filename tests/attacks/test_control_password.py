"""A broker's control password is sent only to the destination for which it was set."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import psycopg
import pytest
from mooring.broker.v1 import management_pb2 as pb

from broker_service.config import ReencryptConfig
from broker_service.encryption import EncryptionKeys
from broker_service.passwords import password_place
from broker_service.reencrypt.__main__ import reencrypted
from tests.integration.broker_service.brokers.test_brokers import created
from tests.integration.broker_service.brokers.test_management import managed
from tests.stack import Stack
from tests.unit.broker_service.certificates.test_certificates import root

SECRET = "the-password-that-is-given-once"
LOGIN = {"username": "control", "password": SECRET}
EVIL = "evil.example.com"
Ask = Callable[..., Awaitable[httpx2.Response]]


async def operator_of(stack: Stack) -> Ask:
    """Calls with the token of an operator, who may change brokers and is not an administrator."""
    made = await stack.admin("POST", "/tokens", json={"name": "op", "role": "operator"})
    headers = {"Authorization": f"Bearer {made.json()['token']}"}

    async def ask(method: str, path: str, **options: Any) -> httpx2.Response:
        return await stack.http.request(method, f"/api/v1{path}", headers=headers, **options)

    return ask


async def managed_broker(stack: Stack, broker_id: int) -> pb.ManagedBroker:
    [one] = [one for one in await managed(stack) if one.id == broker_id]
    return one


async def mosquitto(stack: Stack, **fields: Any) -> int:
    broker = await created(stack, management="mosquitto", **LOGIN, **fields)
    return int(broker["id"])


def ask_for_password(answer: httpx2.Response) -> bool:
    return (answer.status_code, answer.json().get("field")) == (422, "password")


async def test_password_never_reaches_another_host_in_two_patches(stack: Stack) -> None:
    broker_id = await mosquitto(stack)
    operator, path = await operator_of(stack), f"/brokers/{broker_id}"
    for elsewhere in (
        *({"host": EVIL}, {"port": 1}, {"protocol": "mqtt"}, {"protocol": "wss", "path": "/x"}),
        *({"verify_certificate": False}, {"ca_cert": root()}),
    ):
        before = (await operator("GET", path)).json()
        left = await operator("PATCH", path, json={"management": "", **elsewhere})
        assert left.status_code == 200, left.text
        assert ask_for_password(await operator("PATCH", path, json={"management": "mosquitto"}))
        assert await managed(stack) == []
        # Changing it back is allowed, because the password was set for that destination.
        back = {name: before[name] for name in ("host", "port", "protocol", "path")}
        back |= {"verify_certificate": before["verify_certificate"], "ca_cert": before["ca_cert"]}
        again = await operator("PATCH", path, json={"management": "mosquitto", **back})
        assert again.status_code == 200, again.text
        assert (await managed_broker(stack, broker_id)).password == SECRET


async def test_password_never_reaches_another_management(stack: Stack) -> None:
    broker_id = await mosquitto(stack)
    operator, path = await operator_of(stack), f"/brokers/{broker_id}"
    for management in ("emqx", "rabbitmq"):
        for url in (f"https://{EVIL}", "https://mqtt.example.com:8883", "http://127.0.0.1:8883"):
            change = {"management": management, "management_url": url}
            assert ask_for_password(await operator("PATCH", path, json=change))
            unmanaged = {"management": "", "management_url": ""}
            assert (await operator("PATCH", path, json=unmanaged)).status_code == 200
            assert ask_for_password(await operator("PATCH", path, json=change))
    again = {**change, "password": SECRET}
    assert (await operator("PATCH", path, json=again)).status_code == 200
    assert (await managed_broker(stack, broker_id)).password == SECRET
    other = "emqx" if management == "rabbitmq" else "rabbitmq"
    assert ask_for_password(await operator("PATCH", path, json={"management": other}))


async def test_password_never_reaches_another_host_by_sql(stack: Stack) -> None:
    broker_id = await mosquitto(stack)
    for steps in (
        ["management = ''", f"host = '{EVIL}'", "management = 'mosquitto'"],
        ["management = ''", "port = 1", "management = 'mosquitto'"],
        ["management = ''", "verify_certificate = false", "management = 'mosquitto'"],
        ["protocol = 'mqtt', use_tls = false, management = ''", "management = 'mosquitto'"],
    ):
        for step in steps:
            statement = f"UPDATE mqtt_broker_config SET {step} WHERE id = %s"
            stack.database.execute(statement, broker_id, role="mooring_operator")
        one = await managed_broker(stack, broker_id)
        assert (one.WhichOneof("secret"), one.password) == ("password_error", "")
        assert "mqtts://mqtt.example.com:8883" in one.password_error
        assert "PATCH" in one.password_error
        back = (
            "UPDATE mqtt_broker_config SET management = '', host = 'mqtt.example.com', port = 8883,"
            " protocol = 'mqtts', use_tls = true, verify_certificate = true WHERE id = %s"
        )
        stack.database.execute(back, broker_id, role="mooring_operator")


async def test_encrypted_password_is_useless_in_another_row(stack: Stack) -> None:
    broker_id = await mosquitto(stack)
    other = await created(
        stack, name="other", management="mosquitto", username="u", password="x", host=EVIL
    )
    stack.database.execute(
        "UPDATE mqtt_broker_config SET password_encrypted = (SELECT password_encrypted"
        " FROM mqtt_broker_config WHERE id = %s) WHERE id = %s",
        *(broker_id, other["id"]),
    )
    assert (await managed_broker(stack, other["id"])).WhichOneof("secret") == "password_error"
    assert (await managed_broker(stack, broker_id)).password == SECRET


async def test_destination_in_the_encrypted_password_cannot_be_changed(stack: Stack) -> None:
    broker_id = await mosquitto(stack, host="mqtt-1.example.com")
    stack.database.execute(
        "UPDATE mqtt_broker_config SET host = 'mqtt-2.example.com', password_encrypted ="
        " decode(replace(encode(password_encrypted, 'hex'), encode('mqtt-1', 'hex'),"
        " encode('mqtt-2', 'hex')), 'hex') WHERE id = %s",
        broker_id,
        role="mooring_broker",
    )
    assert "cannot be read" in (await managed_broker(stack, broker_id)).password_error


async def test_rollback_does_not_send_password_elsewhere(stack: Stack) -> None:
    operator = await operator_of(stack)
    broker = await created(stack, host=EVIL)
    path = f"/brokers/{broker['id']}"
    mine = {"host": "mine.example.com", "management": "mosquitto", **LOGIN}
    assert (await stack.admin("PATCH", path, json=mine)).status_code == 200
    # It is managed at one host, then at another: the password is required again, and may be given.
    moved = {"host": "new.example.com", "password": SECRET}
    assert (await stack.admin("PATCH", path, json=moved)).status_code == 200
    assert ask_for_password(await operator("POST", f"{path}/rollback", json={"revision": 2}))
    assert (await managed_broker(stack, broker["id"])).host == "new.example.com"
    wrong = await operator("POST", f"{path}/rollback", json={"revision": 2, "password": ""})
    assert ask_for_password(wrong)
    given = {"revision": 2, "password": "another"}
    assert (await operator("POST", f"{path}/rollback", json=given)).status_code == 200
    one = await managed_broker(stack, broker["id"])
    assert (one.host, one.password) == ("mine.example.com", "another")
    # The row of the revision was made by SQL, with the password of another destination.
    for step in ("management = ''", f"host = '{EVIL}'", "management = 'mosquitto'"):
        statement = f"UPDATE mqtt_broker_config SET {step} WHERE id = %s"
        stack.database.execute(statement, broker["id"], role="mooring_operator")
    revision = (await operator("GET", path)).json()["revision"]
    assert (await operator("PATCH", path, json={"management": ""})).status_code == 200
    refused = await operator("POST", f"{path}/rollback", json={"revision": revision})
    assert ask_for_password(refused)


async def test_deleted_broker_does_not_come_back_with_password_elsewhere(stack: Stack) -> None:
    operator, broker_id = await operator_of(stack), await mosquitto(stack)
    path = f"/brokers/{broker_id}"
    for step in ("management = ''", f"host = '{EVIL}'", "management = 'mosquitto'"):
        statement = f"UPDATE mqtt_broker_config SET {step} WHERE id = %s"
        stack.database.execute(statement, broker_id, role="mooring_operator")
    assert (await operator("DELETE", path)).status_code == 204
    assert ask_for_password(await operator("POST", f"{path}/rollback", json={"revision": 4}))
    assert (await operator("POST", f"{path}/rollback", json={"revision": 1})).status_code == 200
    one = await managed_broker(stack, broker_id)
    assert (one.host, one.password) == ("mqtt.example.com", SECRET)


async def test_operator_does_not_replace_the_ca_of_a_managed_broker(stack: Stack) -> None:
    operator, old = await operator_of(stack), root()
    broker_id = await mosquitto(stack, ca_cert=old)
    ca_id = (await operator("GET", f"/brokers/{broker_id}")).json()["ca_certificate_id"]
    rotation, evil = f"/certificates/{ca_id}/rotation", root()
    body = {"replacement": {"pem": evil}, "threshold_percent": 0}
    refused = await operator("POST", rotation, json=body)
    assert refused.status_code == 403, refused.text
    assert (await managed_broker(stack, broker_id)).ca_cert == old
    for change in ({"ca_cert": evil}, {"ca_cert": None}):
        change_it = await operator("PATCH", f"/brokers/{broker_id}", json=change)
        assert ask_for_password(change_it)
    # The owner cannot do it by SQL either: the certificates are compared, not their names.
    stack.database.execute("UPDATE certificates SET pem = %s WHERE id = %s", evil, ca_id)
    assert (await managed_broker(stack, broker_id)).WhichOneof("secret") == "password_error"


async def test_administrator_replaces_the_ca_and_keeps_the_password(stack: Stack) -> None:
    operator, old, new = await operator_of(stack), root(), root()
    broker_id = await mosquitto(stack, ca_cert=old)
    path = f"/brokers/{broker_id}"
    ca_id = (await operator("GET", path)).json()["ca_certificate_id"]
    rotation = f"/certificates/{ca_id}/rotation"
    body = {"replacement": {"pem": new}, "threshold_percent": 0}
    before = (await operator("GET", f"{path}/history")).json()["items"]
    for _ in range(2):
        assert (await stack.admin("POST", rotation, json=body)).status_code == 201
        one = await managed_broker(stack, broker_id)
        assert (one.ca_cert, one.password) == (old + new, SECRET)
        refused = await operator("DELETE", rotation)
        assert refused.status_code == 403, refused.text
        assert (await stack.admin("DELETE", rotation)).status_code == 204
        one = await managed_broker(stack, broker_id)
        assert (one.ca_cert, one.password) == (old, SECRET)
    # Encrypting the password anew is not a change of the broker.
    assert (await operator("GET", f"{path}/history")).json()["items"] == before
    assert (await stack.admin("POST", rotation, json=body)).status_code == 201
    assert (await operator("POST", f"{rotation}/cutover", json={"force": True})).status_code == 403
    over = await stack.admin("POST", f"{rotation}/cutover", json={"force": True})
    assert over.status_code == 200, over.text
    one = await managed_broker(stack, broker_id)
    assert (one.ca_cert, one.password) == (new, SECRET)
    # The same by PATCH; a password for another destination is not kept.
    third = root()
    assert (await stack.admin("PATCH", path, json={"ca_cert": third})).status_code == 200
    one = await managed_broker(stack, broker_id)
    assert (one.ca_cert, one.password) == (third, SECRET)
    moved = {"ca_cert": new, "host": EVIL}
    assert ask_for_password(await stack.admin("PATCH", path, json=moved))
    assert ask_for_password(await stack.admin("PATCH", path, json={"verify_certificate": False}))
    # An operator may still replace CAs that no managed broker uses.
    assert (await operator("PATCH", path, json={"management": ""})).status_code == 200
    assert (await operator("PATCH", path, json={"ca_cert": new})).status_code == 200
    assert ask_for_password(await operator("PATCH", path, json={"management": "mosquitto"}))


def keep_as_before(stack: Stack, broker_id: int) -> None:
    """Stores the broker's password as earlier versions did, without a destination."""
    keys = EncryptionKeys.read(stack.encryption_keys_file)
    place = password_place(broker_id)
    with psycopg.connect(stack.database.url("mooring_broker"), autocommit=True) as connection:
        connection.execute("SET mooring.reencrypting = 'on'")
        for table, owner in (("mqtt_broker_config", "id"), ("mqtt_broker_history", "broker_id")):
            rows = connection.execute(
                f"SELECT DISTINCT password_encrypted FROM {table} WHERE {owner} = %s"
                " AND password_encrypted IS NOT NULL".encode(),
                [broker_id],
            ).fetchall()
            for (kept,) in rows:
                # Equal passwords are equal bytes, as in earlier versions.
                plain = keys.open(kept, place=place).plain
                old = OLD.setdefault((broker_id, plain), keys.encrypt(plain, place=place))
                connection.execute(
                    f"UPDATE {table} SET password_encrypted = %s"
                    f" WHERE {owner} = %s AND password_encrypted = %s".encode(),
                    [old, broker_id, kept],
                )


OLD: dict[tuple[int, str], bytes] = {}


async def bind(stack: Stack) -> int:
    config = ReencryptConfig(
        database_url=stack.database.url("mooring_broker"),
        encryption_keys_file=stack.encryption_keys_file,
    )
    return (await reencrypted(config)).passwords


async def test_password_of_an_earlier_version_is_not_used_before_it_is_bound(stack: Stack) -> None:
    OLD.clear()
    broker_id = await mosquitto(stack, ca_cert=root())
    path = f"/brokers/{broker_id}"
    # An attacker moved this broker while it was not managed, and could not manage it again yet.
    parked = await created(stack, name="parked", management="mosquitto", **LOGIN)
    await stack.admin("PATCH", f"/brokers/{parked['id']}", json={"management": "", "host": EVIL})
    # This broker was never managed.
    plain = await created(stack, name="plain", **LOGIN)
    await stack.admin("PATCH", f"/brokers/{plain['id']}", json={"host": EVIL})
    for each in (broker_id, parked["id"], plain["id"]):
        keep_as_before(stack, each)
    assert "broker_service.reencrypt" in (await managed_broker(stack, broker_id)).password_error
    # Other settings can be changed meanwhile.
    assert (await stack.admin("PATCH", path, json={"keep_alive": 7})).status_code == 200
    before = (await stack.admin("GET", f"{path}/history")).json()
    assert await bind(stack) == 3 * (1 + 2)
    assert await bind(stack) == 0
    assert (await managed_broker(stack, broker_id)).password == SECRET
    assert (await stack.admin("GET", f"{path}/history")).json() == before
    for each in (parked["id"], plain["id"]):
        manage = {"management": "mosquitto"}
        assert ask_for_password(await stack.admin("PATCH", f"/brokers/{each}", json=manage))
        home = {**manage, "host": "mqtt.example.com"}
        assert (await stack.admin("PATCH", f"/brokers/{each}", json=home)).status_code == 200
        assert (await managed_broker(stack, each)).password == SECRET


@pytest.mark.parametrize("seed", range(6))
async def test_no_sequence_of_changes_sends_password_elsewhere(stack: Stack, seed: int) -> None:
    """No sequence of changes without the password sends it elsewhere."""
    rng = random.Random(seed)  # noqa: S311 - so that it can be repeated
    operator, cas = await operator_of(stack), [root() for _ in range(2)]
    broker = await created(stack, management="mosquitto", ca_cert=cas[0], **LOGIN)
    broker_id, path = broker["id"], f"/brokers/{broker['id']}"
    given = await managed_broker(stack, broker_id)
    rest = {"management": "", "management_url": ""}
    changes: list[dict[str, Any]] = [
        {"host": EVIL},
        {"host": "mqtt.example.com"},
        {"port": 1},
        {"port": 8883},
        {"protocol": "mqtt"},
        {"protocol": "mqtts"},
        {"verify_certificate": False},
        {"verify_certificate": True},
        *({"ca_cert": ca} for ca in (*cas, None)),
        rest,
        {"management": "mosquitto", "management_url": ""},
        {"management": "emqx", "management_url": f"https://{EVIL}"},
        {"username": "somebody"},
        {"is_active": True},
        rest | {"host": EVIL},
    ]
    by_sql = [
        "management = ''",
        "management = 'mosquitto'",
        f"host = '{EVIL}'",
        "port = 1",
        "verify_certificate = NOT verify_certificate",
    ]

    async def patch() -> None:
        await operator("PATCH", path, json=rng.choice(changes))

    async def sql() -> None:
        statement = f"UPDATE mqtt_broker_config SET {rng.choice(by_sql)} WHERE id = %s"
        try:
            stack.database.execute(statement, broker_id, role="mooring_operator")
        except psycopg.errors.IntegrityError:
            return

    async def roll_back() -> None:
        body = {"revision": rng.randint(1, 12)}
        await operator("POST", f"{path}/rollback", json=body)

    async def delete() -> None:
        await operator("DELETE", path)

    async def rotate() -> None:
        found = (await operator("GET", path)).json()
        ca_id = found.get("ca_certificate_id")
        if ca_id is not None:
            rotation = f"/certificates/{ca_id}/rotation"
            body = {"replacement": {"pem": root()}, "threshold_percent": 0}
            await operator("POST", rotation, json=body)
            if rng.random() < 0.5:
                await operator("POST", f"{rotation}/cutover", json={"force": True})

    def place_of(one: pb.ManagedBroker) -> tuple[Any, ...]:
        names = ("management", "management_url", "protocol", "host", "port", "path")
        return *(getattr(one, name) for name in names), one.verify_certificate, one.ca_cert

    for _ in range(40):
        await rng.choice([patch, patch, patch, sql, sql, roll_back, delete, rotate])()
        for one in await managed(stack):
            if one.WhichOneof("secret") == "password":
                assert place_of(one) == place_of(given)
