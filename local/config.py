"""The settings of `make run`."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from chassis.config import ProcessConfig
from chassis.hosts import MqttUrl

Port = Annotated[int, Field(ge=1, le=65535)]


def _is_libpq_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("it does not begin with postgresql://")
    return url


class LocalConfig(ProcessConfig):
    """The variable with a field's name in capitals sets it; an empty variable counts as not set."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    process: ClassVar[str] = "make run"
    renamed: ClassVar[Mapping[str, str]] = {
        "BACKGROUND_METRICS_PORT": "WORKER_METRICS_PORT",
        "ENFORCEMENT_METRICS_PORT": "WORKER_METRICS_PORT",
    }

    gateway_port: Port = 4002
    registry_port: Port = 50052
    broker_port: Port = 50051
    access_port: Port = 4003
    postgres_port: Port = 5433
    mqtt_port: Port = 5883
    """Of the local broker, and of the Mosquitto that is started behind it."""
    mooring_home: Path = Path(".mooring")
    mooring_database_url: Annotated[SecretStr, AfterValidator(_is_libpq_url)] | None = None
    """A PostgreSQL of the user's own; its user owns the database and has CREATEROLE."""

    # The other settings belong to the services, which check them too.
    mqtt_broker_url: MqttUrl | None = None
    log_level: str | None = None
    gateway_metrics_port: Port | None = None
    registry_metrics_port: Port | None = None
    broker_metrics_port: Port | None = None
    worker_metrics_port: Port | None = None
    broker_worker_metrics_port: Port | None = None
    access_metrics_port: Port | None = None
    sealing_metrics_port: Port | None = None

    def service_ports(self) -> dict[str, int]:
        """The ports that the services will listen on, by the name of their setting."""
        ports = {
            "GATEWAY_PORT": self.gateway_port,
            "REGISTRY_PORT": self.registry_port,
            "BROKER_PORT": self.broker_port,
            "ACCESS_PORT": self.access_port,
            "GATEWAY_METRICS_PORT": self.gateway_metrics_port,
            "REGISTRY_METRICS_PORT": self.registry_metrics_port,
            "BROKER_METRICS_PORT": self.broker_metrics_port,
            "WORKER_METRICS_PORT": self.worker_metrics_port,
            "BROKER_WORKER_METRICS_PORT": self.broker_worker_metrics_port,
            "ACCESS_METRICS_PORT": self.access_metrics_port,
            "SEALING_METRICS_PORT": self.sealing_metrics_port,
        }
        return {name: port for name, port in ports.items() if port is not None}

    @model_validator(mode="after")
    def _has_a_port_for_each(self) -> Self:
        ports = self.service_ports() | {"MQTT_PORT": self.mqtt_port}
        if self.mooring_database_url is None:
            ports["POSTGRES_PORT"] = self.postgres_port
        for port, uses in Counter(ports.values()).items():
            if uses > 1:
                names = " and ".join(name for name, chosen in ports.items() if chosen == port)
                raise ValueError(f"{names} are the same port, {port}")
        return self
