"""Writing what was just read changes nothing and is never refused, however old it is."""

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.integration.gateway.test_document import document_of, operations_of
from tests.stack import Stack

# The body is a file, which no answer contains.
FILES = {("/api/v1/jobs/{job_id}/rows", "put")}


def expired_ca() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "expired")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject_name=name,
        issuer_name=name,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=now - timedelta(days=9),
        not_valid_after=now + timedelta(days=9),
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


async def made(stack: Stack, method: str, path: str, body: dict[str, Any]) -> Any:
    answer = await stack.admin(method, path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def prepared(stack: Stack) -> dict[str, str]:
    """Makes one resource of each kind that can be changed, all of it old; ids by path parameter."""
    soon = (datetime.now(UTC) + timedelta(hours=1, microseconds=123_457)).isoformat()
    broker = {"name": "Old", "host": "old.example.com", "port": 8883, "protocol": "mqtts"}
    broker |= {"ca_cert": expired_ca(), "labels": {"site": "berlin"}, "username": "u"}
    old = await made(stack, "POST", "/brokers", broker)
    other = await made(stack, "POST", "/brokers", broker | {"name": "Other", "ca_cert": None})
    fleet = {"id": "old", "allowed_broker_ids": [other["id"], old["id"]]}
    await made(stack, "POST", "/fleets", fleet | {"mqtt_broker_id": old["id"]})
    rollout = {"broker_id": other["id"], "percent": 12.34, "salt": "salt"}
    await made(stack, "PUT", "/fleets/old/rollout", rollout)
    key = {"fleet_id": "old", "expires_at": soon, "max_devices": 5}
    key |= {"default_broker_id": old["id"], "source_networks": ["127.0.0.0/8", "2001:db8::/32"]}
    key |= {"allowed_uuids": ["b", "a", "device"], "allowed_device_types": ["raspberry-pi-4"]}
    created = await made(stack, "POST", "/provisioning-keys", key)
    location = {"latitude": 52.520008, "longitude": 13.404954}
    registered = await stack.register("device", key=created["key"], location=location)
    assert registered.status_code == 201, registered.text
    account = {"username": "bridge", "expires_at": soon, "publish": ["a/#"]}
    account |= {"broker_ids": [other["id"], old["id"]]}
    account = await made(stack, "POST", "/service-accounts", account)
    pool = {"name": "Old", "members": [{"broker_id": old["id"], "weight": 7}]}
    pool = await made(stack, "POST", "/pools", pool)
    region = {"id": "old", "name": "Old", **location, "pool_id": pool["id"]}
    await made(stack, "POST", "/regions", region)
    # Time passes: values that were valid when they were set would be refused now.
    execute = stack.database.execute
    execute("UPDATE provisioning_keys SET expires_at = expires_at - interval '1 day'")
    execute("UPDATE service_accounts SET expires_at = expires_at - interval '1 day'")
    execute("UPDATE certificates SET not_after = now() - interval '1 day'")
    execute("DELETE FROM fleet_brokers")
    execute("UPDATE mqtt_broker_config SET is_active = false WHERE name = 'Other'")
    execute("ALTER TABLE mqtt_broker_config DISABLE TRIGGER USER")
    execute("UPDATE mqtt_broker_config SET host = 'old.example.com.' WHERE name = 'Old'")
    execute("ALTER TABLE mqtt_broker_config ENABLE TRIGGER USER")
    return {
        "broker_id": str(old["id"]),
        "certificate_id": str(old["ca_certificate_id"]),
        "fleet_id": "old",
        "key_id": created["id"],
        "uuid": "device",
        "account_id": account["id"],
        "pool_id": str(pool["id"]),
        "region_id": "old",
    }


def audited(stack: Stack) -> int:
    return int(stack.database.execute("SELECT count(*) FROM audit_log")[0][0])


async def test_what_was_read_can_be_written(stack: Stack) -> None:
    values = await prepared(stack)
    token = {"name": "theirs", "role": "operator", "fleet_ids": ["old"]}
    secret = (await made(stack, "POST", "/tokens", token))["token"]
    theirs = {"Authorization": f"Bearer {secret}"}
    walked = restricted = 0
    bodies: dict[tuple[str, str], dict[str, Any]] = {}
    for path, method, operation in operations_of(document := await document_of(stack)):
        if method not in ("put", "patch") or (path, method) in FILES:
            continue
        walked += 1
        target = path.removeprefix("/api/v1").format(**values)
        before = (await stack.admin("GET", target)).json()
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        body = {name: before[name] for name in schema["properties"] if name in before}
        assert body, path
        lines = audited(stack)
        answer = await stack.admin(method.upper(), target, json=body)
        assert answer.status_code == 200, (path, body, answer.text)
        assert answer.json() == before, path
        # Each field alone can be written too.
        for name, value in body.items():
            required = {each: body[each] for each in schema.get("required", ())}
            answer = await stack.admin(method.upper(), target, json=required | {name: value})
            assert answer.status_code == 200, (path, name, answer.text)
        assert (await stack.admin("GET", target)).json() == before, path
        assert audited(stack) == lines, path
        bodies[method.upper(), f"/api/v1{target}"] = body
    assert walked >= 7
    # A restricted token can write back what it reads, where it may change anything.
    for (verb, url), body in bodies.items():
        read = await stack.http.get(url, headers=theirs)
        if read.status_code != 200:
            continue
        same = {name: read.json()[name] for name in body if name in read.json()}
        answer = await stack.http.request(verb, url, json=same, headers=theirs)
        if answer.status_code != 403 or "is not for a token" not in answer.text:
            restricted += 1
            assert (answer.status_code, answer.json()) == (200, read.json()), (url, answer.text)
    assert restricted >= 4
