"""The environment variables of the broker service and its command."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from chassis.address_policy import DEFAULT, PolicySetting
from chassis.config import BindConfig, CalleeConfig, DatabaseConfig, Port
from chassis.hosts import MqttUrl


class BrokerDatabaseConfig(DatabaseConfig):
    """The variables that the broker service and its command share."""

    renamed: ClassVar[Mapping[str, str]] = {"BROKER_DATABASE_URL": "DATABASE_URL"}
    database_role: ClassVar[str] = "mooring_broker"

    # The ring with which brokers' secrets are encrypted.
    encryption_keys_file: Path


class BrokerServiceConfig(BrokerDatabaseConfig, BindConfig, CalleeConfig):
    """Each field is set by the environment variable of its name in capitals."""

    process: ClassVar[str] = "broker_service"
    shown: ClassVar[frozenset[str]] = frozenset({"mqtt_broker_url", "broker_address_policy"})
    renamed: ClassVar[Mapping[str, str]] = {
        "BROKER_HOST": "BIND_HOST",
        "BROKER_PORT": "BIND_PORT",
        "BROKER_METRICS_PORT": "METRICS_PORT",
    }

    bind_port: Port = 50051
    # The broker of last resort; the same for both services.
    mqtt_broker_url: MqttUrl = "mqtt://mosquitto:1883"
    # The addresses to which tests of brokers connect: any, not-local, public, or networks separated
    # by commas.
    broker_address_policy: PolicySetting = DEFAULT
    # The public halves of the keys with which the registry signs tickets.
    ticket_public_keys_file: Path


class ReencryptConfig(BrokerDatabaseConfig):
    """The variables of `broker_service.reencrypt`."""

    process: ClassVar[str] = "broker_service.reencrypt"
