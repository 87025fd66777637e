"""The environment variables of `registry_service.access`."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from chassis.config import ProcessConfig, check_listener


class AccessConfig(ProcessConfig):
    """A field is set by the variable of its name in capitals."""

    renamed: ClassVar[Mapping[str, str]] = {"ACCESS_METRICS_PORT": "METRICS_PORT"}

    # libpq URL; the role mooring_access.
    access_database_url: str = Field(pattern=r"\Apostgres(ql)?://")
    access_host: str = "127.0.0.1"
    # 0 takes a free one.
    access_port: int = Field(default=4003, ge=0, le=65535)
    # The certificate that brokers see, and its key.
    access_tls_cert_file: Path | None = None
    access_tls_key_file: Path | None = None
    # Connections of brokers, in all and of one address (a /64 of IPv6).
    access_max_connections: int = Field(default=10_000, ge=1)
    access_max_connections_per_address: int = Field(default=4_000, ge=1)
    # The longest session at brokers that support a limit; then the device must show its password
    # again.
    session_s: int = Field(default=86_400, ge=60)
    drain_s: float = Field(default=0.3, ge=0)

    @model_validator(mode="after")
    def _is_private_or_has_tls(self) -> "AccessConfig":
        files = self.access_tls_cert_file, self.access_tls_key_file
        check_listener("ACCESS", self.access_host, *files)
        return self
