"""What the broker service reads from its environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from chassis.config import CalleeConfig
from chassis.hosts import BrokerUrl


class BrokerServiceConfig(CalleeConfig):
    """A field is set by the variable of its name in capitals."""

    renamed: ClassVar[Mapping[str, str]] = {"BROKER_METRICS_PORT": "METRICS_PORT"}

    broker_host: str = "127.0.0.1"
    broker_port: int = Field(default=50051, ge=0, le=65535)
    # The broker of last resort; the same for both services.
    mqtt_broker_url: BrokerUrl = "mqtt://mosquitto:1883"
    # libpq URL; the role mooring_broker.
    broker_database_url: str = Field(pattern=r"\Apostgres(ql)?://")
    # The ring under which brokers' secrets are encrypted.
    encryption_keys_file: Path
    # The public halves of the keys that the registry signs tickets with.
    ticket_public_keys_file: Path
