"""An operator cannot make Mooring connect to an address that BROKER_ADDRESS_POLICY refuses."""

import asyncio
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme

import migrations
from chassis.address_policy import DEFAULT, UNRESTRICTED, AddressPolicy
from chassis.connecting import AddressRefused, connected, resolved
from registry_service.admission.reconciler.config import EnforcementConfig
from registry_service.admission.reconciler.http_management import Emqx, HttpSettings
from registry_service.admission.reconciler.mosquitto_client import ControlSettings, DynamicSecurity
from registry_service.errors import ControlUnreachable
from tests import hostile
from tests.dynamic_security import DynamicMosquitto, filled
from tests.integration.registry_service.admission.reconciler.test_http_management import kicked
from tests.integration.registry_service.admission.reconciler.test_reconciler import (
    managed,
    reconciling,
    until_state,
)
from tests.stack import Stack

LOOPBACK = ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "0")


@pytest.mark.parametrize("host", LOOPBACK)
async def test_this_machine_is_not_reached_under_another_name(host: str) -> None:
    reached = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(host)

    async with hostile.serving(note) as port:
        with pytest.raises(AddressRefused, match="BROKER_ADDRESS_POLICY"):
            await connected(host, port, DEFAULT, None)
        with pytest.raises(ControlUnreachable, match="BROKER_ADDRESS_POLICY"):
            await DynamicSecurity(ControlSettings(host, port, "u", "p")).state()
        emqx = Emqx(HttpSettings(f"http://{host}:{port}", "u", "p"))
        with pytest.raises(ControlUnreachable, match="BROKER_ADDRESS_POLICY"):
            await emqx.kick(["device_a"])
        await emqx.close()
    assert reached == []


async def test_name_that_changes_its_address_reaches_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name is resolved once, and the connection uses the addresses that were checked."""
    loop, asked = asyncio.get_running_loop(), []

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> list[Any]:
        asked.append(host)
        # The first answer is allowed, and every later one is not.
        address = "127.0.0.1" if len(asked) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    policy = AddressPolicy.parse("127.0.0.0/8")
    body = b'{"data":[]}'
    behaviour = hostile.body_of(body)
    async with hostile.serving(behaviour) as port:
        emqx = Emqx(HttpSettings(f"http://rebound.example:{port}", "u", "p", policy=policy))
        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        assert await emqx.kick(["device_a"]) == {"device_a": 0}
        assert asked == ["rebound.example"]
        with pytest.raises(ControlUnreachable, match=r"169\.254\.169\.254"):
            await emqx.kick(["device_a"])
        await emqx.close()


async def test_refused_addresses_of_a_name_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = ["127.0.0.1", "10.0.0.1", "::1", "169.254.169.254", "10.0.0.2", "10.0.0.1"]

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    assert await resolved("h", 1, DEFAULT) == ["10.0.0.1", "10.0.0.2"]


async def test_certificate_is_checked_against_the_name_and_not_the_address() -> None:
    ca = trustme.CA()
    pem = ca.cert_pem.bytes().decode()
    for name, is_right in (("localhost", True), ("127.0.0.1", False), ("other.example", False)):
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert(name).configure_cert(tls)
        behaviour = hostile.body_of(b'{"data":[]}')
        async with hostile.serving(behaviour, tls) as port:
            url = f"https://localhost:{port}"
            emqx = Emqx(HttpSettings(url, "u", "p", ca_pem=pem, policy=UNRESTRICTED))
            if is_right:
                assert await emqx.kick(["device_a"]) == {"device_a": 0}
            else:
                with pytest.raises(ControlUnreachable):
                    await emqx.kick(["device_a"])
            await emqx.close()


def test_an_unset_policy_is_not_any(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    for name in os.environ:
        if name.startswith("BROKER_ADDRESS"):
            monkeypatch.delenv(name)
    given: dict[str, Any] = {
        "database_url": "postgresql://h/d",
        "server_keys_file": tmp_path,
        "service_secret_file": secret,
    }
    assert EnforcementConfig(**given).broker_address_policy == DEFAULT
    monkeypatch.setenv("BROKER_ADDRESS_POLICY", "10.0.0.0/8,fd00::/8")
    policy = EnforcementConfig(**given).broker_address_policy
    assert policy == AddressPolicy.parse("10.0.0.0/8,fd00::/8")
    monkeypatch.setenv("BROKER_ADDRESS_POLICY", "everything")
    with pytest.raises(ValueError, match="broker_address_policy"):
        EnforcementConfig(**given)


async def test_a_broker_on_this_machine_is_not_managed_and_its_problem_says_why(
    stack: Stack, tmp_path: Path
) -> None:
    with DynamicMosquitto(tmp_path, filled([])) as broker:
        await managed(stack, broker)
        async with reconciling(stack, broker_address_policy="not-local"):
            why = (
                "127.0.0.1 is not connected to: 127.0.0.1 is a loopback address"
                " (BROKER_ADDRESS_POLICY)"
            )
            await until_state(stack, "problem", why)
        # Only the database's owner can exempt a broker, and only at its present address.
        keep = "INSERT INTO local_brokers_kept VALUES (%s, %s)"
        kept = (stack.default_broker_id, f"127.0.0.1:{broker.port}")
        for role in ("mooring_broker", "mooring_operator", "mooring_registry"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                stack.database.execute(keep, *kept, role=role)
        stack.database.execute(keep, *kept)
        async with reconciling(stack, broker_address_policy="not-local"):
            await until_state(stack, "problem", None)
            await managed(stack, broker, port=1)
            await until_state(stack, "problem", why)


async def test_the_upgrade_exempts_only_existing_brokers_on_this_machine(stack: Stack) -> None:
    name = f"{stack.database.name}_old"
    owner = stack.database.url("mooring")
    with psycopg.connect(stack.database.server.superuser_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER mooring".encode())
    url = owner.replace(stack.database.name, name)
    kept = {
        ("mosquitto", "localhost", 1883, ""): "localhost:1883",
        ("mosquitto", "127.0.0.53", 1883, ""): "127.0.0.53:1883",
        ("mosquitto", "::1", 8883, ""): "::1:8883",
        ("emqx", "h", 1, "http://127.0.0.1:18083"): "http://127.0.0.1:18083",
        ("rabbitmq", "h", 1, "https://[::1]/x"): "https://[::1]/x",
        ("mosquitto", "localhost.example.com", 1883, ""): None,
        ("mosquitto", "127.evil.example", 1883, ""): None,
        ("mosquitto", "169.254.169.254", 1883, ""): None,
        ("emqx", "localhost", 1, "https://localhost.example.com"): None,
        ("", "localhost", 1883, ""): None,
    }
    try:
        await asyncio.to_thread(migrations.upgrade, url, "0029")
        with psycopg.connect(url, autocommit=True) as connection:
            for index, (management, host, port, management_url) in enumerate(kept):
                connection.execute(
                    "INSERT INTO mqtt_broker_config (name, host, port, management, management_url,"
                    " username, password_encrypted) VALUES (%s, %s, %s, %s, %s, 'u', '\\x01')",
                    [str(index), host, port, management, management_url],
                )
        await asyncio.to_thread(migrations.upgrade, url)
        with psycopg.connect(url) as connection:
            rows = connection.execute(
                "SELECT name, endpoint FROM mqtt_broker_config"
                " LEFT JOIN local_brokers_kept ON broker_id = id ORDER BY id"
            ).fetchall()
        assert dict(rows) == {str(index): kept[key] for index, key in enumerate(kept)}
    finally:
        with psycopg.connect(stack.database.server.superuser_url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def test_an_api_without_an_address_is_reported_as_unreachable() -> None:
    with pytest.raises(ControlUnreachable, match="no connection"):
        await kicked("http://no-such-host.invalid:1", "device_a")
