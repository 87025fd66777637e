"""The environment variables of the broker service and its command."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from chassis.address_policy import DEFAULT, PolicySetting
from chassis.config import BindConfig, CalleeConfig, DatabaseConfig, MetricsConfig, Names, Port
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


class BrokerWorkerConfig(BrokerDatabaseConfig, MetricsConfig):
    """Each field is set by the environment variable of its name in capitals."""

    process: ClassVar[str] = "broker_service.worker"
    shown: ClassVar[frozenset[str]] = frozenset(
        {
            *("worker_loops", "broker_address_policy", "health_acts", "health_vantage"),
            *("health_interval_s", "health_timeout_s", "health_session_s"),
            *("health_slow_ms", "health_dwell_s"),
        }
    )

    # The loops that this process runs, separated by commas; all if there are none.
    worker_loops: Names = ()
    # The addresses that are probed: any, not-local, public, or networks separated by commas.
    broker_address_policy: PolicySetting = DEFAULT
    # Whether the states of brokers are changed. If not, only the results of probes are kept.
    health_acts: bool = True
    # The name of the place from which this process probes.
    health_vantage: str = Field(default="mooring", pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\z")
    # How often a message is sent through each broker.
    health_interval_s: float = Field(default=10.0, ge=0.1, le=3_600)
    # The time for each step of a connection, and for a message to come back.
    health_timeout_s: float = Field(default=5.0, gt=0, le=60)
    # How long a session is used before a new connection is made.
    health_session_s: float = Field(default=300.0, ge=1, le=86_400)
    # A message that takes longer is a fault.
    health_slow_ms: float = Field(default=2_000.0, gt=0)
    # How long a state lasts at least.
    health_dwell_s: float = Field(default=10.0, ge=0, le=3_600)


class ReencryptConfig(BrokerDatabaseConfig):
    """The variables of `broker_service.reencrypt`."""

    process: ClassVar[str] = "broker_service.reencrypt"
