"""What the gateway reads from its environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from chassis.config import CallerConfig, check_listener
from gateway.addresses import Network, networks_of
from gateway.limits import Limit, limit_of


class GatewayConfig(CallerConfig):
    """A field is set by the variable of its name in capitals."""

    renamed: ClassVar[Mapping[str, str]] = {"GATEWAY_METRICS_PORT": "METRICS_PORT"}

    gateway_host: str = "127.0.0.1"
    # 0 takes a free one.
    gateway_port: int = Field(default=4002, ge=0, le=65535)
    # What devices and people see; `tls_*` is what the other services see.
    gateway_tls_cert_file: Path | None = None
    gateway_tls_key_file: Path | None = None

    # Connections of clients, in all and of one address (a /64 of IPv6).
    gateway_max_connections: int = Field(default=10_000, ge=1)
    gateway_max_connections_per_address: int = Field(default=4_000, ge=1)

    registry_service_address: str = "127.0.0.1:50052"
    broker_service_address: str = "127.0.0.1:50051"

    # How long a caller waits for an answer, at most.
    request_timeout_s: float = Field(default=10.0, ge=0.5, le=120)
    # How long a stop waits for requests under way.
    shutdown_grace_s: int = Field(default=5, ge=1, le=60)

    # How often devices may ask this process; empty is no limit. Counting costs a tenth of what a
    # registration costs here, and no key fills more than half of the queue in any case.
    limit_per_key: Annotated[Limit | None, NoDecode, BeforeValidator(limit_of)] = None
    # Off: a factory's devices come from one address, that of its NAT.
    limit_per_address: Annotated[Limit | None, NoDecode, BeforeValidator(limit_of)] = None
    # How often API tokens that are not valid may be tried here: from one address, and with the same
    # first characters from anywhere. Empty is no limit.
    limit_failed_per_address: Annotated[Limit | None, NoDecode, BeforeValidator(limit_of)] = Limit(
        10, 60
    )
    limit_failed_per_prefix: Annotated[Limit | None, NoDecode, BeforeValidator(limit_of)] = Limit(
        10, 60
    )

    # The reverse proxies in front of it, networks with commas between them: who asks is whom they
    # name in X-Forwarded-For. Nothing else may be in those networks.
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(networks_of)] = ()

    @model_validator(mode="after")
    def _is_private_or_has_tls(self) -> "GatewayConfig":
        files = self.gateway_tls_cert_file, self.gateway_tls_key_file
        check_listener("GATEWAY", self.gateway_host, *files)
        return self
