"""Configuration: all faults are reported at once, and unsafe settings must be explicit."""

import os
from pathlib import Path
from unittest import mock

import pytest

from broker_service.config import BrokerServiceConfig
from chassis.config import is_loopback, load
from registry_service.config import RegistryServiceConfig


def environment(**variables: str) -> "mock._patch_dict":
    return mock.patch.dict(os.environ, variables, clear=True)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    with (
        environment(BIND_PORT="many", LOG_LEVEL="LOUD", DATABASE_URL="mysql://x"),
        pytest.raises(SystemExit) as refused,
    ):
        load(RegistryServiceConfig)
    text = str(refused.value)
    for name in ("BIND_PORT", "LOG_LEVEL", "DATABASE_URL", "SERVER_KEYS_FILE"):
        assert name in text
    assert "mysql://x" not in text


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({}, "CALLER_HASHES_FILE"),
        ({"SERVICE_SECRET_FILE": "/nowhere"}, "/nowhere"),
        ({"TLS_CERT_FILE": "/a"}, "together"),
        ({"MQTT_BROKER_URL": "http://x"}, "MQTT_BROKER_URL"),
        ({"MQTT_BROKER_URL": "mqtt://user:password@host"}, "MQTT_BROKER_URL"),
    ],
)
def test_missing_and_wrong_variables_are_named(variables: dict[str, str], word: str) -> None:
    with (
        environment(
            DATABASE_URL="postgresql://x",
            ENCRYPTION_KEYS_FILE="/ring",
            TICKET_PUBLIC_KEYS_FILE="/public",
            **variables,
        ),
        pytest.raises(SystemExit, match=word) as refused,
    ):
        load(BrokerServiceConfig)
    assert "user:password" not in str(refused.value)


def test_a_configuration_is_frozen(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 32)
    with environment(
        DATABASE_URL="postgresql://x",
        ENCRYPTION_KEYS_FILE="/ring",
        TICKET_PUBLIC_KEYS_FILE="/public",
        SERVICE_SECRET_FILE=str(secret),
        BIND_PORT="1234",
    ):
        config = load(BrokerServiceConfig)
    assert config.bind_port == 1234
    with pytest.raises(ValueError, match="frozen"):
        config.bind_port = 1


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.168.1.1", False),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("192.168.1.1", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_loopback_addresses_are_recognised(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
