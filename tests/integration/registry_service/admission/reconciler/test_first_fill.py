"""The command that writes the first file of a Mosquitto's dynamic security plugin."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry_service.admission.reconciler.fill import main
from tests.broker_versions import Version
from tests.dynamic_security import PASSWORD, USERNAME, DynamicMosquitto
from tests.integration.registry_service.administration.test_import import (
    BCRYPT,
    MOSQUITTO,
    imported,
    row,
)
from tests.integration.registry_service.admission.reconciler.test_reconciler import (
    is_let_in,
    login,
    managed,
    reconciling,
    until_let_in,
)
from tests.stack import Stack

KEPT = pytest.mark.every_version("Mooring keeps its list of clients")
SECRET = {"CONTROL_PASSWORD": PASSWORD}


def environment(stack: Stack) -> dict[str, str]:
    return {
        "DATABASE_URL": stack.database.url("mooring_registry"),
        "SERVER_KEYS_FILE": str(stack.keys_file),
    }


def arguments(stack: Stack, *options: str) -> list[str]:
    return ["--broker", str(stack.default_broker_id), "--control-username", USERNAME, *options]


@dataclass
class Command:
    """Runs the command in this process, because starting another Python takes seconds."""

    stack: Stack
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    async def run(self, *options: str, **changes: str) -> tuple[Any, str, str]:
        """Returns the exit status (None on success), and the texts on stdout and stderr.

        The login's password is in the environment, unless `changes` are given.
        """
        given = {**environment(self.stack), **(changes or SECRET)}
        self.capsys.readouterr()
        status = None
        with self.monkeypatch.context() as patched:
            for name in ("CONTROL_PASSWORD", "CONTROL_PASSWORD_FILE"):
                patched.delenv(name, raising=False)
            for name, value in given.items():
                patched.setenv(name, value)
            try:
                await asyncio.to_thread(main, arguments(self.stack, *options))
            except SystemExit as ended:
                status = ended.code
        said = self.capsys.readouterr()
        return status, said.out, said.err


@pytest.fixture
def command(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return Command(stack, monkeypatch, capsys)


@KEPT
async def test_a_broker_knows_its_devices_from_the_start(
    stack: Stack, tmp_path: Path, mosquitto_version: Version
) -> None:
    one, two = await login(stack, "one"), await login(stack, "two")
    await stack.admin("PATCH", "/devices/two", json={"is_active": False})
    pin = {"mqtt_broker_id": stack.default_broker_id}
    await imported(
        stack,
        [
            row("a", mqtt_username="pump-a", password_hash=MOSQUITTO, **pin),
            row("b", mqtt_username="pump-b", password_hash=BCRYPT, **pin),
        ],
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "registry_service.admission.reconciler.fill", *arguments(stack)],
        env={**os.environ, **environment(stack), **SECRET},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        f"broker {stack.default_broker_id}: 2 devices are in the file\n"
        "left out: 1, whose passwords Mosquitto could not check: pump-b\n"
    )
    assert PASSWORD not in done.stdout + done.stderr
    with DynamicMosquitto(tmp_path, done.stdout, version=mosquitto_version) as broker:
        assert await is_let_in(broker, one)
        assert await is_let_in(broker, ("pump-a", "secret"))
        for login_ in (two, ("pump-b", "secret"), (one[0], two[1])):
            assert not await is_let_in(broker, login_)
        # The reconciler has nothing left to do, and its login can make further changes.
        await managed(stack, broker)
        async with reconciling(stack):
            await until_let_in(broker, await login(stack, "three"), is_in=True)
        assert await is_let_in(broker, one)
        assert await is_let_in(broker, ("pump-a", "secret"))


async def test_only_the_owner_can_read_the_file_and_it_is_replaced_on_request(
    command: Command, tmp_path: Path
) -> None:
    await login(command.stack, "one")
    file, secret, folder = (tmp_path / name for name in ("filled.json", "secret", "broker"))
    secret.write_text(f"{PASSWORD}\n")
    from_file = {"CONTROL_PASSWORD_FILE": str(secret)}
    status, out, _ = await command.run("--to", str(file), **from_file)
    assert (status, out) == (None, "")
    assert file.stat().st_mode & 0o777 == 0o600
    folder.mkdir()
    with DynamicMosquitto(folder, file.read_text()) as broker:
        assert await is_let_in(broker, (USERNAME, PASSWORD))
    file.write_text("{}")
    status, _, _ = await command.run("--to", str(file), **from_file)
    assert "File exists" in status
    assert file.read_text() == "{}"
    status, _, _ = await command.run("--to", str(file), "--replace", **from_file)
    assert status is None
    assert len(json.loads(file.read_text())["clients"]) == 2


@pytest.mark.parametrize(
    ("options", "changes", "complaint"),
    [
        ((), {"CONTROL_PASSWORD": ""}, "CONTROL_PASSWORD_FILE or CONTROL_PASSWORD is needed"),
        ((), {**SECRET, "CONTROL_PASSWORD_FILE": "/dev/null"}, "and not both"),
        ((), {"CONTROL_PASSWORD_FILE": "/dev/null"}, "/dev/null is empty"),
        ((), {"CONTROL_PASSWORD_FILE": "/nowhere"}, "cannot be read"),
        (("--replace",), SECRET, "with --to only"),
        (("--control-username", ""), SECRET, "is empty"),
        (("--control-username", "device_one"), SECRET, "is Mooring's own login at the broker"),
        (("--to", "/nowhere/file"), SECRET, "cannot be written"),
        ((), {**SECRET, "DATABASE_URL": "sqlite://"}, "DATABASE_URL"),
    ],
)
async def test_wrong_options_and_settings_are_named(
    command: Command, options: tuple[str, ...], changes: dict[str, str], complaint: str
) -> None:
    await login(command.stack, "one")
    status, out, err = await command.run(*options, **changes)
    assert status not in (None, 0)
    assert out == ""
    assert complaint in f"{status}{err}"


async def test_a_broker_with_too_many_devices_is_refused(command: Command) -> None:
    stack = command.stack
    stack.database.execute(
        """
        INSERT INTO devices (
            uuid, device_name, device_type, fleet_id, mqtt_broker_id, mqtt_username,
            mqtt_password_hash, credential_salt, credential_key_id, api_key_hash, provisioned_at,
            provisioned_by_key_id, password_algorithm
        )
        SELECT 'i' || n, '', '', 'demo', %s, 'i' || n, %s, '', NULL, NULL, NULL, NULL,
               'mosquitto_pbkdf2'
        FROM generate_series(1, 1001) AS n
        """,
        stack.default_broker_id,
        MOSQUITTO,
    )
    status, out, _ = await command.run()
    assert "1001 clients are more than the 1000" in status
    assert out == ""
