"""All secrets are encrypted again under a new key, and nothing else changes."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

import broker_service.reencrypt.store
from broker_service.certificates.database import private_key_place
from broker_service.config import ReencryptConfig
from broker_service.encryption import EncryptionKeys, key_id_of
from broker_service.passwords import password_place
from broker_service.reencrypt.__main__ import reencrypted, show
from broker_service.reencrypt.store import Chunk, ReencryptionStore
from chassis.database import engine_of
from tests.stack import Stack
from tests.unit.broker_service.certificates.test_certificates import ISSUER, KEY, LEAF

SECRETS = {
    "mqtt_broker_config": "password_encrypted",
    "mqtt_broker_history": "password_encrypted",
    "certificates": "private_key_encrypted",
}


def ring(file: Path, active: int, *ids: int) -> Path:
    """A file with the keys `ids`; key 1 is the stack's."""
    secrets = {1: bytes(32)}
    keys = [
        {"id": each, "secret": base64.b64encode(secrets.get(each, bytes([each]) * 32)).decode()}
        for each in ids
    ]
    file.write_text(json.dumps({"active": active, "keys": keys}))
    return file


def key_ids(stack: Stack) -> dict[str, set[int]]:
    return {
        table: {
            key_id_of(kept)
            for (kept,) in stack.database.execute(
                f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"
            )
        }
        for table, column in SECRETS.items()
    }


async def furnished(stack: Stack) -> list[str]:
    """Makes brokers with histories, the last one deleted, and a certificate; the brokers' paths."""
    client = {"kind": "client", "pem": LEAF + ISSUER, "private_key": KEY}
    certificate = (await stack.admin("POST", "/certificates", json=client)).json()
    paths = []
    for name in ("a", "b", "gone"):
        body = {"name": name, "host": "h", "port": 1, "username": "u", "password": f"one {name}"}
        body["client_certificate_id"] = certificate["id"]
        broker = (await stack.admin("POST", "/brokers", json=body)).json()
        paths.append(f"/brokers/{broker['id']}")
        for change in ({"keep_alive": 1}, {"password": f"two {name}"}, {"keep_alive": 2}):
            await stack.admin("PATCH", paths[-1], json=change)
    await stack.admin("DELETE", paths[-1])
    return paths


async def seen(stack: Stack, paths: list[str]) -> list[Any]:
    """The brokers and their histories, as the API shows them."""
    return [
        (await stack.admin("GET", path + below)).json()
        for path in paths
        for below in ("", "/history")
        if below or path != paths[-1]
    ]


def config_of(stack: Stack, file: Path) -> ReencryptConfig:
    return ReencryptConfig(
        database_url=stack.database.url("mooring_broker"), encryption_keys_file=file
    )


async def test_the_old_key_can_go_and_nothing_else_has_changed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = await furnished(stack)
    before = await seen(stack, paths)
    assert key_ids(stack) == {table: {1} for table in SECRETS}
    file = ring(stack.home / "both.json", 2, 1, 2)
    keys = EncryptionKeys.read(file)
    monkeypatch.setattr(broker_service.reencrypt.store, "CHUNK", 1)

    # The command is stopped after the first chunk, and started again.
    engine = engine_of(stack.database.url("mooring_broker"), pool_size=1)
    first = await ReencryptionStore(engine, keys).passwords(0)
    await engine.dispose()
    assert first == Chunk(passwords=1 + 4, last_id=int(paths[0].rpartition("/")[2]))
    assert key_ids(stack)["mqtt_broker_config"] == {1, 2}
    done = await reencrypted(config_of(stack, file))
    assert (done.passwords, done.private_keys, done.unreadable) == (1 + 4 + 4, 1, ())
    assert await reencrypted(config_of(stack, file)) == Chunk()
    assert show(done, 2) == 0
    said = capsys.readouterr().out
    assert "9 passwords and 1 private keys were put under key 2" in said
    assert "no other key is needed any more" in said

    assert key_ids(stack) == {table: {2} for table in SECRETS}
    assert await seen(stack, paths) == before
    lines = (await stack.admin("GET", "/audit-log?limit=5")).json()["items"]
    assert [line["action"] for line in lines if line["action"].startswith("encryption")] == [
        "encryption.renew"
    ] * 4
    # Without the old key the service still works, and rolls back to revisions under it.
    await stack.stop_broker_service()
    alone = ring(stack.home / "alone.json", 2, 2)
    await stack.start_broker_service(encryption_keys_file=alone)
    async with asyncio.timeout(10):
        while (await stack.admin("GET", paths[0])).status_code == 503:
            await asyncio.sleep(0.05)
    for path in (paths[0], paths[-1]):
        back = await stack.admin("POST", f"{path}/rollback", json={"revision": 1})
        assert back.status_code == 200, back.text
    read = EncryptionKeys.read(alone)
    for broker_id, name, kept in stack.database.execute(
        "SELECT id, name, password_encrypted FROM mqtt_broker_config WHERE username = 'u'"
    ):
        password = "two b" if name == "b" else f"one {name}"
        assert read.open(kept, place=password_place(broker_id)).plain == password
    [(certificate_id, kept)] = stack.database.execute(
        "SELECT id, private_key_encrypted FROM certificates"
    )
    assert "PRIVATE KEY" in read.decrypt(kept, place=private_key_place(certificate_id))


async def test_a_secret_that_cannot_be_read_is_named_and_not_changed(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = await furnished(stack)
    stack.database.execute(
        "UPDATE mqtt_broker_history SET password_encrypted ="
        " set_byte(password_encrypted, 20, get_byte(password_encrypted, 20) # 1)"
        " WHERE revision = 1"
    )
    done = await reencrypted(config_of(stack, ring(stack.home / "both.json", 2, 1, 2)))
    # The second revision has the same password, which can still be read.
    assert (done.passwords, done.private_keys) == (2 + 3 * 3, 1)
    assert show(done, 2) == 1
    said = capsys.readouterr().out
    for path in paths:
        assert f"cannot be read: a password of broker {path.rpartition('/')[2]}" in said
    assert key_ids(stack)["mqtt_broker_history"] == {1, 2}
    assert "no other key is needed" not in said
    assert "one a" not in said
