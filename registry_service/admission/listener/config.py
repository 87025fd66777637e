"""The environment variables of `registry_service.access`."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from chassis.config import DatabaseConfig, HttpConfig, MetricsConfig, Port


class AccessConfig(DatabaseConfig, HttpConfig, MetricsConfig):
    """Each field is set by the environment variable of its name in capitals."""

    process: ClassVar[str] = "registry_service.access"
    renamed: ClassVar[Mapping[str, str]] = {
        "ACCESS_DATABASE_URL": "DATABASE_URL",
        "ACCESS_HOST": "BIND_HOST",
        "ACCESS_PORT": "BIND_PORT",
        "ACCESS_METRICS_PORT": "METRICS_PORT",
        "ACCESS_TLS_CERT_FILE": "HTTPS_CERT_FILE",
        "ACCESS_TLS_KEY_FILE": "HTTPS_KEY_FILE",
        "ACCESS_MAX_CONNECTIONS": "MAX_CONNECTIONS",
        "ACCESS_MAX_CONNECTIONS_PER_ADDRESS": "MAX_CONNECTIONS_PER_ADDRESS",
    }
    database_role: ClassVar[str] = "mooring_access"
    shown: ClassVar[frozenset[str]] = frozenset({"session_s"})

    bind_port: Port = 4003
    # The longest session at brokers that support a limit; then the device must show its password
    # again.
    session_s: int = Field(default=86_400, ge=60)
