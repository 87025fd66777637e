"""Certificates as operators upload them, give them to brokers, and forget them."""

import base64
import json
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import trustme
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

import broker_service.__main__
from broker_service.certificates.database import private_key_place
from broker_service.encryption import EncryptionKeys
from tests.stack import Stack
from tests.unit.broker_service.certificates.test_certificates import CA, ISSUER, KEY, LEAF, root

CLIENT = {"kind": "client", "pem": LEAF + ISSUER, "private_key": KEY}
TLS = {"name": "TLS", "host": "h", "port": 8883, "protocol": "mqtts"}


async def uploaded(stack: Stack, **given: Any) -> dict[str, Any]:
    made = await stack.admin("POST", "/certificates", json={"kind": "ca", "pem": CA, **given})
    assert made.status_code == 201, made.text
    certificate: dict[str, Any] = made.json()
    return certificate


async def refusal(stack: Stack, method: str, path: str, **options: Any) -> tuple[int, str, str]:
    answer = await stack.admin(method, path, **options)
    problem = answer.json()
    return answer.status_code, problem["reason"], problem.get("field", "")


async def test_one_certificate_serves_many_brokers_until_none_names_it(stack: Stack) -> None:
    ca = await uploaded(stack, name="Hall 1")
    client = await uploaded(stack, **CLIENT)
    assert (ca["name"], ca["kind"], ca["has_private_key"], ca["pem"]) == ("Hall 1", "ca", False, CA)
    assert (client["has_private_key"], client["pem"]) == (True, LEAF + ISSUER)
    chosen = {"ca_certificate_id": ca["id"], "client_certificate_id": client["id"]}
    ids = []
    for name in ("a", "b"):
        broker = (
            await stack.admin("POST", "/brokers", json={**TLS, **chosen, "name": name})
        ).json()
        assert {which: broker[which] for which in chosen} == chosen
        assert broker["ca_cert"] == CA
        ids.append(broker["id"])
    path = f"/certificates/{ca['id']}"
    assert (await stack.admin("GET", path)).json()["broker_ids"] == ids

    await stack.admin("POST", f"/brokers/{ids[0]}/default")
    config = (await stack.register()).json()["mqtt"]["brokerConfig"]
    assert (config["caCert"], config["clientCert"]) == (CA, LEAF + ISSUER)

    used = await stack.admin("DELETE", path)
    assert (used.status_code, used.json()["reason"]) == (409, "CERTIFICATE_IN_USE")
    assert used.json()["usage"] == {"brokers": 2, "revisions": 2 + 1, "rotations": 0}
    changed = await stack.admin("PATCH", f"/brokers/{ids[0]}", json=dict.fromkeys(chosen))
    assert {changed.json()[which] for which in chosen} == {None}
    config = (await stack.connection("test-device-123")).json()["brokerConfig"]
    assert not {"caCert", "clientCert"} & config.keys()

    # A certificate that no broker and no history uses can be deleted.
    spare = await uploaded(stack, pem=root())
    assert (await stack.admin("DELETE", f"/certificates/{spare['id']}")).status_code == 204
    gone = await refusal(stack, "GET", f"/certificates/{spare['id']}")
    assert gone == (404, "CERTIFICATE_NOT_FOUND", "")


async def test_a_broker_cannot_use_an_unknown_certificate(stack: Stack) -> None:
    ca, client = await uploaded(stack), await uploaded(stack, **CLIENT)
    for wrong in (
        {"ca_certificate_id": 2_000_000_000},
        {"ca_certificate_id": client["id"]},
        {"client_certificate_id": ca["id"]},
    ):
        [field] = wrong
        for method, path, body in (
            ("POST", "/brokers", {**TLS, **wrong}),
            ("PATCH", f"/brokers/{stack.default_broker_id}", wrong),
        ):
            refused = await refusal(stack, method, path, json=body)
            assert refused == (422, "CERTIFICATE_UNKNOWN", field)
    both = {"ca_cert": CA, "ca_certificate_id": ca["id"]}
    refused = await refusal(stack, "POST", "/brokers", json={**TLS, **both})
    assert refused == (422, "INVALID_INPUT", "ca_certificate_id")
    # SQL refuses it too, with a hint.
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="no client certificate") as error:
        stack.database.execute(
            "UPDATE mqtt_broker_config SET client_certificate_id = %s",
            ca["id"],
            role="mooring_operator",
        )
    assert "SELECT id, name FROM certificates" in (error.value.diag.message_hint or "")


async def test_the_same_certificate_is_stored_once(stack: Stack) -> None:
    ca = await uploaded(stack)
    again = await stack.admin("POST", "/certificates", json={"kind": "ca", "pem": f"#\n{CA}{CA}"})
    assert (again.status_code, again.json()["reason"]) == (409, "CERTIFICATE_EXISTS")
    assert again.json()["detail"] == f"certificate {ca['id']} is the same"
    # A broker's ca_cert uses the stored certificate too, though its text differs.
    broker = (await stack.admin("POST", "/brokers", json={**TLS, "ca_cert": CA})).json()
    assert broker["ca_certificate_id"] == ca["id"]
    named = {"name": "The first"}
    renamed = (await stack.admin("PATCH", f"/certificates/{ca['id']}", json=named)).json()
    assert renamed["revision"] != ca["revision"]
    now = {**named, "broker_ids": [broker["id"]], "revision": renamed["revision"]}
    assert renamed == {**ca, **now}


async def test_certificates_that_expire_soon_are_listed(stack: Stack) -> None:
    soon = await uploaded(stack, pem=root(expires=timedelta(days=20)))
    late = await uploaded(stack, pem=root(expires=timedelta(days=40)))
    client = await uploaded(stack, **CLIENT)
    gone = await uploaded(stack, pem=root())
    stack.database.execute(
        "UPDATE certificates SET not_after = now() - interval '1 day' WHERE id = %s", gone["id"]
    )

    async def ids(query: str) -> list[int]:
        found = []
        cursor: str | None = ""
        while cursor is not None:
            path = f"/certificates?limit=2&cursor={cursor}&{query}"
            page = (await stack.admin("GET", path)).json()
            found += [item["id"] for item in page["items"]]
            assert all("pem" not in item for item in page["items"])
            cursor = page["next_cursor"]
        return found

    assert await ids("expires_within=30d") == [soon["id"], gone["id"]]
    assert await ids("expires_within=6w&kind=ca") == [soon["id"], late["id"], gone["id"]]
    assert await ids("expires_within=0h") == [gone["id"]]
    assert await ids("kind=client") == [client["id"]]
    assert await ids("") == [one["id"] for one in (soon, late, client, gone)]
    for wrong in ("30", "-1d", "30d%0A", "1e3d", "99999d", "٣d"):
        refused = await refusal(stack, "GET", f"/certificates?expires_within={wrong}")
        assert refused == (422, "INVALID_INPUT", "expires_within")


async def test_a_certificate_in_use_that_expires_soon_is_logged_as_a_warning(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Expiry is checked when everything is read, not when only changed rows are read.
    monkeypatch.setattr(broker_service.placements.snapshot, "REREAD_S", 0.0)
    soon = await uploaded(stack, pem=root(expires=timedelta(days=20, hours=1)), name="soon")
    labels = {"id": str(soon["id"]), "name": "soon"}

    def days_left() -> float | None:
        return REGISTRY.get_sample_value("mooring_certificate_days_left", labels)

    with capture_logs() as lines:
        for name in ("a", "b"):
            assert days_left() == (None if name == "a" else pytest.approx(20, abs=0.1))
            body = {**TLS, "name": name, "ca_certificate_id": soon["id"]}
            assert (await stack.admin("POST", "/brokers", json=body)).status_code == 201
    [line] = [line for line in lines if line["log_level"] == "warning"]
    assert (line["certificate"], line["name"], line["days_left"]) == (soon["id"], "soon", 20)


async def test_bad_uploads_are_named_and_nothing_is_kept(stack: Stack) -> None:
    ca_key = {"kind": "ca", "pem": CA, "private_key": KEY}
    other_key = trustme.CA().issue_cert("d").private_key_pem.bytes().decode()
    for body, field in (
        ({"kind": "server", "pem": CA}, "kind"),
        ({"kind": "ca"}, "pem"),
        ({"kind": "ca", "pem": LEAF}, "pem"),
        ({"kind": "ca", "pem": CA + "\0" * 10, "name": "\0"}, "name"),
        ({"kind": "ca", "pem": CA, "name": ""}, "name"),
        ({"kind": "ca", "pem": CA[:-40]}, "pem"),
        ({"kind": "ca", "pem": "A" * 900_000}, "pem"),
        (ca_key, "private_key"),
        ({**CLIENT, "private_key": other_key}, "private_key"),
        ({**CLIENT, "private_key": ""}, "private_key"),
        ({**CLIENT, "pem": ISSUER + LEAF}, "pem"),
    ):
        refused = await refusal(stack, "POST", "/certificates", json=body)
        assert refused == (422, "INVALID_INPUT", field), body
    assert stack.database.execute("SELECT count(*) FROM certificates") == [(0,)]


def key_lines() -> list[str]:
    """The lines of the private key that are too long to occur anywhere by chance."""
    return [line for line in KEY.splitlines() if len(line) > 40]


async def test_a_private_key_is_never_seen_again(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    client = await uploaded(stack, **CLIENT)
    body = {**TLS, "client_certificate_id": client["id"]}
    await stack.admin("POST", "/brokers", json=body)
    await stack.admin("POST", "/certificates", json={**CLIENT, "pem": LEAF + CA})
    await stack.admin("POST", "/certificates", json={**CLIENT, "pem": LEAF + ISSUER + KEY})
    said = caplog.text
    for path in ("/certificates", f"/certificates/{client['id']}", "/brokers", "/audit-log"):
        said += (await stack.admin("GET", path)).text
    tables = ("certificates", "mqtt_broker_config", "mqtt_broker_history", "audit_log")
    for table in tables:
        for (row,) in stack.database.execute(f"SELECT to_jsonb(t)::text FROM {table} AS t"):
            said += row
    for line in key_lines():
        assert line not in said
    [(kept,)] = stack.database.execute("SELECT private_key_encrypted FROM certificates")
    assert KEY.encode()[40:80] not in kept
    # It can be decrypted for its own row, and for no other.
    ring = EncryptionKeys.read(stack.encryption_keys_file)
    read = ring.decrypt(kept, place=private_key_place(client["id"]))
    assert "BEGIN PRIVATE KEY" in read
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stack.database.execute(
            "SELECT private_key_encrypted FROM certificates", role="mooring_operator"
        )


async def test_the_audit_log_says_who_created_renamed_and_deleted_a_certificate(
    stack: Stack,
) -> None:
    client = await uploaded(stack, **CLIENT, name="ours")
    path = f"/certificates/{client['id']}"
    await stack.admin("PATCH", path, json={"name": "theirs"})
    await stack.admin("PATCH", path, json={"name": "theirs"})
    await stack.admin("DELETE", path)
    lines = (await stack.admin("GET", "/audit-log?limit=3")).json()["items"]
    assert [(line["action"], line["subject"], line["actor"]) for line in lines] == [
        (f"certificate.{verb}", str(client["id"]), "tests")
        for verb in ("delete", "rename", "create")
    ]
    assert (lines[1]["before"], lines[1]["after"]) == ({"name": "ours"}, {"name": "theirs"})
    assert lines[2]["after"]["has_private_key"] is True


async def test_the_service_does_not_start_without_the_key_of_a_private_key(stack: Stack) -> None:
    await uploaded(stack, **CLIENT)
    ring = {"active": 2, "keys": [{"id": 2, "secret": base64.b64encode(b"2" * 32).decode()}]}
    file = stack.home / "another-ring.json"
    file.write_text(json.dumps(ring))
    with pytest.raises(SystemExit, match="keys that are not in it: 1"):
        async with broker_service.__main__.running(stack.broker_config(encryption_keys_file=file)):
            pass


async def test_certificates_that_can_never_verify_are_reported_on_upload_and_use(
    stack: Stack,
) -> None:
    root = trustme.CA()
    middle = root.create_child_ca().cert_pem.bytes().decode()
    whole = middle + root.cert_pem.bytes().decode()

    async def reasons(method: str, path: str, **options: Any) -> list[str]:
        answer = await stack.admin(method, path, **options)
        assert answer.status_code in (200, 201), answer.text
        body = answer.json()
        return [each["reason"] for each in body.get("items", [body])[-1]["warnings"]]

    bundle = {"kind": "ca", "pem": middle}
    assert await reasons("POST", "/certificates", json=bundle) == ["NO_ROOT"]
    assert await reasons("GET", "/certificates") == ["NO_ROOT"]
    [listed] = (await stack.admin("GET", "/certificates")).json()["items"]
    assert await reasons("GET", f"/certificates/{listed['id']}") == ["NO_ROOT"]
    broker = {"name": "b", "host": "mqtt.example.com", "port": 8883, "protocol": "mqtts"}
    assert await reasons("POST", "/brokers", json=broker | {"ca_cert": middle}) == ["NO_ROOT"]
    assert await reasons("GET", "/brokers") == ["NO_ROOT"]
    broker_id = (await stack.admin("GET", "/brokers")).json()["items"][-1]["id"]
    assert await reasons("GET", f"/brokers/{broker_id}") == ["NO_ROOT"]
    assert await reasons("PATCH", f"/brokers/{broker_id}", json={"ca_cert": whole}) == []
    change = {"ca_certificate_id": listed["id"]}
    assert await reasons("PATCH", f"/brokers/{broker_id}", json=change) == ["NO_ROOT"]
    assert await reasons("PATCH", f"/brokers/{broker_id}", json={"ca_cert": None}) == []
    other = {"kind": "ca", "pem": root.cert_pem.bytes().decode()}
    old_id = (await stack.admin("POST", "/certificates", json=other)).json()["id"]
    path, replacement = f"/certificates/{old_id}/rotation", {"replacement_id": listed["id"]}
    assert await reasons("POST", path, json=replacement) == ["NO_ROOT"]
    assert await reasons("GET", path) == ["NO_ROOT"]
    row = json.dumps(broker | {"name": "imported", "ca_cert": middle})
    for options in ("?dry_run=true", ""):
        answer = await stack.http.post(
            f"/api/v1/brokers/import{options}",
            content=row,
            headers={
                "Authorization": f"Bearer {stack.admin_token}",
                "Content-Type": "application/x-ndjson",
            },
        )
        imported, end = map(json.loads, answer.text.splitlines())
        assert [each["reason"] for each in imported["warnings"]] == ["NO_ROOT"]
        assert end["created"] == 1
