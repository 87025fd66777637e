"""The environment variables of the registry service, of its worker and of its commands."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from chassis.config import (
    BindConfig,
    CalleeConfig,
    CallerConfig,
    DatabaseConfig,
    MetricsConfig,
    Names,
    Port,
)
from chassis.hosts import MqttUrl


class RegistryDatabaseConfig(DatabaseConfig):
    """The variables that the registry service, its worker and its commands share."""

    renamed: ClassVar[Mapping[str, str]] = {"REGISTRY_DATABASE_URL": "DATABASE_URL"}
    database_role: ClassVar[str] = "mooring_registry"


class RegistryServiceConfig(RegistryDatabaseConfig, BindConfig, CallerConfig, CalleeConfig):
    """Each field is set by the environment variable of its name in capitals."""

    process: ClassVar[str] = "registry_service"
    shown: ClassVar[frozenset[str]] = frozenset(
        {
            *("mqtt_broker_url", "broker_service_address", "broker_timeout_s"),
            *("refresh_after_s", "stopgap_refresh_after_s", "previous_password_s"),
        }
    )
    renamed: ClassVar[Mapping[str, str]] = {
        "REGISTRY_HOST": "BIND_HOST",
        "REGISTRY_PORT": "BIND_PORT",
        "REGISTRY_METRICS_PORT": "METRICS_PORT",
    }

    bind_port: Port = 50052
    # The broker of last resort; the same for both services.
    mqtt_broker_url: MqttUrl = "mqtt://mosquitto:1883"
    # A gRPC target.
    broker_service_address: str = "127.0.0.1:50051"
    # How long a registration waits for the broker service before it uses a stopgap.
    broker_timeout_s: float = Field(default=2.0, gt=0)
    server_keys_file: Path
    # The ring that tickets are signed with; no other service has it.
    ticket_keys_file: Path
    # `refreshAfter` of answers to devices, and of stopgaps.
    refresh_after_s: int = Field(default=3600, ge=1)
    stopgap_refresh_after_s: int = Field(default=60, ge=1)
    # How long brokers that ask Mooring accept the previous password of a device.
    previous_password_s: float = Field(default=3600, ge=0, le=30 * 86_400)
    # A session at the console ends this long after its last use, and this long after its beginning.
    session_idle_s: float = Field(default=3600, ge=60, le=86_400)
    session_longest_s: float = Field(default=43_200, ge=60, le=7 * 86_400)


class WorkerConfig(RegistryDatabaseConfig, MetricsConfig):
    """Each field is set by the environment variable of its name in capitals.

    The loop `enforcement` has further variables: registry_service/admission/reconciler/config.py.
    """

    process: ClassVar[str] = "registry_service.worker"
    shown: ClassVar[frozenset[str]] = frozenset(
        {
            *("worker_loops", "job_poll_s", "job_lease_s", "timeline_address_days"),
            *("reader_transaction_s", "reader_session_s"),
        }
    )
    renamed: ClassVar[Mapping[str, str]] = {
        "BACKGROUND_METRICS_PORT": "METRICS_PORT",
        "ENFORCEMENT_METRICS_PORT": "METRICS_PORT",
    }

    # The loops that this process runs, separated by commas; all if there are none.
    worker_loops: Names = ()
    # How often to check whether a job was started.
    job_poll_s: float = Field(default=0.5, gt=0)
    # How long no other process runs jobs after this process has renewed its lease.
    job_lease_s: float = Field(default=5.0, gt=0)
    # How long a transaction and a session of the role mqtt_reader may last.
    reader_transaction_s: float = Field(default=15.0, gt=0)
    reader_session_s: float = Field(default=86_400.0, gt=0)
    # After how many days the addresses in the timelines of devices are cleared.
    timeline_address_days: float = Field(default=30.0, ge=0, le=36_500)
