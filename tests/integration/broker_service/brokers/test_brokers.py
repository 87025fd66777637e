"""Brokers and their certificates, as operators manage them over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from chassis.trust import Access
from tests.stack import Stack

LOGIN = {"username": "u", "password": "p"}
NEW = {"name": "Cloud", "host": "mqtt.example.com", "port": 8883, "protocol": "mqtts"}


def pem_of(ca: trustme.CA) -> str:
    return ca.cert_pem.bytes().decode()


def expired_ca() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old")])
    past = datetime.now(UTC) - timedelta(days=10)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, past, past + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )

    return certificate.public_bytes(Encoding.PEM).decode()


async def created(stack: Stack, **fields: Any) -> dict[str, Any]:
    response = await stack.admin("POST", "/brokers", json=NEW | fields)
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_a_broker_from_creation_to_deletion(stack: Stack) -> None:
    broker = await created(stack, description="ours", region="eu")
    assert broker["use_tls"] is True
    assert broker["keep_alive"] == 60
    assert (broker["is_default"], broker["is_active"], broker["revision"]) == (False, True, 1)
    path = f"/brokers/{broker['id']}"
    assert (await stack.admin("GET", path)).json() == broker

    patched = (await stack.admin("PATCH", path, json={"port": 8884})).json()
    changed = {"port": 8884, "revision": 2, "updated_at": patched["updated_at"]}
    assert patched == broker | changed

    listed = (await stack.admin("GET", "/brokers")).json()
    assert [item["name"] for item in listed["items"]] == ["Local Broker", "Cloud"]
    assert listed["next_cursor"] is None
    assert (await stack.admin("DELETE", path)).status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        gone = await stack.admin(method, path, json={} if method == "PATCH" else None)
        assert (gone.status_code, gone.json()["reason"]) == (404, "BROKER_NOT_FOUND")


async def test_a_ca_certificate_reaches_the_device(stack: Stack) -> None:
    ca = pem_of(trustme.CA())
    broker = await created(stack, ca_cert=f"a comment\n{ca}")
    assert broker["ca_cert"] == ca
    await stack.admin("POST", f"/brokers/{broker['id']}/default")
    mqtt = (await stack.register()).json()["mqtt"]
    assert mqtt["broker"] == "mqtts://mqtt.example.com:8883"
    assert mqtt["brokerConfig"]["caCert"] == ca
    assert mqtt["brokerConfig"]["useTls"] is True
    assert "clientCert" not in mqtt["brokerConfig"]

    # Editing another field does not touch the certificate; null removes it.
    await stack.admin("PATCH", f"/brokers/{broker['id']}", json={"keep_alive": 30})
    config = (await stack.connection("test-device-123")).json()["brokerConfig"]
    assert (config["caCert"], config["keepAlive"]) == (ca, 30)
    await stack.admin("PATCH", f"/brokers/{broker['id']}", json={"ca_cert": None})
    config = (await stack.connection("test-device-123")).json()["brokerConfig"]
    assert "caCert" not in config


async def test_one_certificate_serves_many_brokers(stack: Stack) -> None:
    ca = pem_of(trustme.CA())
    first = await created(stack, name="a", ca_cert=ca)
    second = await created(stack, name="b", ca_cert=ca)
    assert first["ca_certificate_id"] == second["ca_certificate_id"]
    row = stack.database.execute(
        "SELECT kind, subject, issuer, fingerprint_sha256, not_before < not_after"
        " FROM certificates",
        role="mooring_operator",
    )
    certificate = x509.load_pem_x509_certificate(ca.encode())
    name = certificate.subject.rfc4514_string()
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    assert row == [("ca", name, name, fingerprint, True)]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"host": "a b"}, "host"),
    ({"host": "256.1.1.1"}, "host"),
    ({"host": "-a.example.com"}, "host"),
    ({"host": "fe80::1%eth0"}, "host"),
    ({"host": "[::1]"}, "host"),
    ({"host": ""}, "host"),
    ({"port": 0}, "port"),
    ({"port": 65_536}, "port"),
    ({"port": 2**40}, "port"),
    ({"port": "1883"}, "port"),
    ({"protocol": "http"}, "protocol"),
    ({"protocol": "mqtt", "use_tls": True}, "use_tls"),
    ({"path": "/mqtt"}, "path"),
    ({"protocol": "wss", "path": "mqtt"}, "path"),
    ({"keep_alive": 65_536}, "keep_alive"),
    ({"connect_timeout": 0}, "connect_timeout"),
    ({"name": ""}, "name"),
    ({"name": "a\0b"}, "name"),
    ({"name": None}, "name"),
    ({"name": "x" * 256}, "name"),
    ({"is_default": True}, "is_default"),
    ({"keepalive": 1}, "keepalive"),
    ({"ca_cert": "not a certificate"}, "ca_cert"),
    ({"ca_cert": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}, "ca_cert"),
    ({"ca_cert": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"}, "ca_cert"),
    ({"ca_cert": "x" * 70_000}, "ca_cert"),
    ({"management": "hivemq"}, "management"),
    ({"management": "mosquitto"}, "management"),
    ({"management": "mosquitto", "username": "u"}, "management"),
    ({**LOGIN, "management": "emqx"}, "management_url"),
    (
        {**LOGIN, "management": "emqx", "management_url": "http://emqx.example.com"},
        "management_url",
    ),
    ({**LOGIN, "management": "emqx", "management_url": "https://u:p@h"}, "management_url"),
    ({**LOGIN, "management": "mosquitto", "management_url": "https://h"}, "management_url"),
    ({"management_url": "https://h"}, "management_url"),
    ({"management_url": "x" * 2_001}, "management_url"),
]


async def test_management_is_set_changed_and_removed(stack: Stack) -> None:
    broker = await created(stack)
    path = f"/brokers/{broker['id']}"
    assert (broker["management"], broker["management_url"]) == ("", "")

    async def patched(**fields: Any) -> tuple[int, str, str]:
        answer = await stack.admin("PATCH", path, json=fields)
        body = answer.json()
        if answer.status_code == 422:
            return 422, body["field"], ""
        return answer.status_code, body["management"], body["management_url"]

    url = "https://broker.example.com:15671"
    assert await patched(management="mosquitto") == (422, "management", "")
    assert await patched(management="mosquitto", **LOGIN) == (200, "mosquitto", "")
    assert await patched(management="rabbitmq") == (422, "management_url", "")
    assert await patched(management_url=url) == (422, "management_url", "")
    # The password would be sent to another address.
    elsewhere = {"management": "rabbitmq", "management_url": url}
    assert await patched(**elsewhere) == (422, "password", "")
    given = {**elsewhere, "password": LOGIN["password"]}
    assert await patched(**given) == (200, "rabbitmq", url)
    # Another kind of management is another destination too.
    assert await patched(management="emqx") == (422, "password", "")
    given = {"management": "emqx", "password": LOGIN["password"]}
    assert await patched(**given) == (200, "emqx", url)
    assert (await stack.admin("GET", path)).json()["management"] == "emqx"
    # A managed broker keeps its login.
    assert await patched(password=None) == (422, "management", "")
    assert await patched(username=None, password=None) == (422, "management", "")
    assert await patched(management=None) == (422, "management_url", "")
    assert await patched(management=None, management_url=None) == (200, "", "")
    assert await patched(username=None, password=None) == (200, "", "")
    # Devices are not told about it.
    await stack.admin("POST", f"{path}/default")
    assert "management" not in (await stack.register()).text


async def test_a_wrong_field_is_named_and_nothing_is_stored(stack: Stack) -> None:
    for fields, field in WRONG:
        refused = await stack.admin("POST", "/brokers", json=NEW | fields)
        assert refused.status_code == 422, (fields, refused.text)
        assert refused.json()["field"] == field
    assert stack.database.execute("SELECT count(*) FROM mqtt_broker_config") == [(1,)]
    assert stack.database.execute("SELECT count(*) FROM certificates") == [(0,)]


async def test_a_certificate_that_cannot_be_a_ca_is_refused(stack: Stack) -> None:
    leaf = trustme.CA().issue_cert("broker.example.com").cert_chain_pems[0].bytes().decode()
    for pem, word in ((leaf, "not a CA"), (expired_ca(), "expired")):
        refused = await stack.admin("POST", "/brokers", json=NEW | {"ca_cert": pem})
        assert refused.status_code == 422
        assert word in refused.json()["detail"]


async def test_an_ipv6_address_is_in_brackets(stack: Stack) -> None:
    broker = await created(stack, host="2001:db8::1", protocol="wss", path="/mqtt", port=443)
    await stack.admin("POST", f"/brokers/{broker['id']}/default")
    mqtt = (await stack.register()).json()["mqtt"]
    assert mqtt["broker"] == "wss://[2001:db8::1]:443/mqtt"
    assert mqtt["brokerConfig"]["host"] == "2001:db8::1"


async def test_a_changed_protocol_changes_use_tls(stack: Stack) -> None:
    broker = await created(stack)
    path = f"/brokers/{broker['id']}"
    plain = (await stack.admin("PATCH", path, json={"protocol": "mqtt"})).json()
    assert plain["use_tls"] is False
    disagreeing = await stack.admin("PATCH", path, json={"use_tls": True})
    assert disagreeing.json()["field"] == "use_tls"


async def test_there_is_always_exactly_one_default(stack: Stack) -> None:
    broker = await created(stack)
    path = f"/brokers/{broker['id']}"
    assert (await stack.admin("POST", f"{path}/default")).json()["is_default"] is True
    defaults = "SELECT id FROM mqtt_broker_config WHERE is_default"
    assert stack.database.execute(defaults) == [(broker["id"],)]
    for refused in (
        await stack.admin("DELETE", path),
        await stack.admin("PATCH", path, json={"is_active": False}),
    ):
        assert (refused.status_code, refused.json()["reason"]) == (409, "BROKER_IS_DEFAULT")
    other = f"/brokers/{stack.default_broker_id}"
    await stack.admin("PATCH", other, json={"is_active": False})
    refused = await stack.admin("POST", f"{other}/default")
    assert (refused.status_code, refused.json()["reason"]) == (409, "BROKER_INACTIVE")
    assert stack.database.execute(defaults) == [(broker["id"],)]


async def test_a_broker_in_use_cannot_be_deleted(stack: Stack) -> None:
    await stack.register("one")
    broker = await created(stack)
    path = f"/brokers/{broker['id']}"
    await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": broker["id"]})
    refused = await stack.admin("DELETE", path)
    assert (refused.status_code, refused.json()["reason"]) == (409, "BROKER_IN_USE")
    await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": None})
    assert (await stack.admin("DELETE", path)).status_code == 204


async def test_two_brokers_cannot_have_one_name(stack: Stack) -> None:
    await created(stack)
    for taken in (
        await stack.admin("POST", "/brokers", json=NEW),
        await stack.admin("PATCH", f"/brokers/{stack.default_broker_id}", json={"name": "Cloud"}),
    ):
        assert (taken.status_code, taken.json()["reason"]) == (409, "BROKER_NAME_TAKEN")


async def test_lists_come_a_page_at_a_time(stack: Stack) -> None:
    for n in range(5):
        await created(stack, name=f"b{n}")
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query: dict[str, Any] = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await stack.admin("GET", "/brokers", params=query)).json()
        assert len(page["items"]) <= 2
        names += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert names == ["Local Broker", *(f"b{n}" for n in range(5))]
    for wrong in ({"limit": 0}, {"limit": 501}, {"cursor": "AAAA"}, {"cursor": "é"}):
        refused = await stack.admin("GET", "/brokers", params=wrong)
        assert refused.status_code == 422, (wrong, refused.text)


async def test_a_list_of_ids_holds_those_that_the_token_may_see(stack: Stack) -> None:
    allowed, other, third = [(await created(stack, name=f"b{n}"))["id"] for n in range(3)]
    fleet = {"id": "limited", "name": "l", "allowed_broker_ids": [allowed]}
    assert (await stack.admin("POST", "/fleets", json=fleet)).status_code == 201
    token = await stack.token(Access.VIEWER, ("limited",))
    asked = {"id": [other, allowed, 2**31 - 1, allowed]}
    for headers, wanted in (
        ({"Authorization": f"Bearer {stack.admin_token}"}, [allowed, other]),
        ({"Authorization": f"Bearer {token}"}, [allowed]),
    ):
        listed = await stack.http.get("/api/v1/brokers", headers=headers, params=asked)
        assert [item["id"] for item in listed.json()["items"]] == wanted
    both = await stack.admin("GET", "/brokers", params={"id": [other, third], "name": "b2"})
    assert [item["id"] for item in both.json()["items"]] == [third]
    for wrong in ([0], [-1], [2**31], ["x"], [*range(1, 502)]):
        refused = await stack.admin("GET", "/brokers", params={"id": wrong})
        assert refused.status_code == 422, wrong[:2]
        assert refused.json()["field"] == "id", wrong[:2]


async def test_administration_needs_a_token(stack: Stack) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer mat_nobody"},
        {"Authorization": f"Bearer {stack.provisioning_key}"},
        {"Authorization": stack.admin_token},
    ):
        for method, path in (
            ("GET", "/brokers"),
            ("POST", "/brokers"),
            ("PUT", "/devices/one"),
            ("POST", "/provisioning-keys"),
            ("GET", "/fleets"),
        ):
            refused = await stack.http.request(
                method, f"/api/v1{path}", headers=headers, json=None if method == "GET" else {}
            )
            assert refused.status_code == 401, (method, path)
            assert refused.headers["WWW-Authenticate"].startswith("Bearer")
