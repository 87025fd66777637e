"""What the gateway reads from its environment."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from chassis.config import CallerConfig, HttpConfig, Port
from gateway.addresses import Network, networks_of
from gateway.limits import Limit, limit_of


class GatewayConfig(HttpConfig, CallerConfig):
    """A field is set by the variable of its name in capitals."""

    process: ClassVar[str] = "gateway"
    renamed: ClassVar[Mapping[str, str]] = {
        "GATEWAY_HOST": "BIND_HOST",
        "GATEWAY_PORT": "BIND_PORT",
        "GATEWAY_METRICS_PORT": "METRICS_PORT",
        "GATEWAY_TLS_CERT_FILE": "HTTPS_CERT_FILE",
        "GATEWAY_TLS_KEY_FILE": "HTTPS_KEY_FILE",
        "GATEWAY_MAX_CONNECTIONS": "MAX_CONNECTIONS",
        "GATEWAY_MAX_CONNECTIONS_PER_ADDRESS": "MAX_CONNECTIONS_PER_ADDRESS",
    }

    bind_port: Port = 4002

    registry_service_address: str = "127.0.0.1:50052"
    broker_service_address: str = "127.0.0.1:50051"

    # The longest time that a caller waits for an answer.
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

    # The reverse proxies in front of it, networks with commas between them: the client's address is
    # the one in their X-Forwarded-For. Nothing else may be in those networks.
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(networks_of)] = ()
