"""The environment variables of the gateway."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from chassis.config import CallerConfig, HttpConfig, Port
from gateway.addresses import Network, networks_of
from gateway.limits import Limit, limit_of


class GatewayConfig(HttpConfig, CallerConfig):
    """Each field is set by the environment variable of its name in capitals."""

    process: ClassVar[str] = "gateway"
    shown: ClassVar[frozenset[str]] = frozenset(
        {
            *("registry_service_address", "broker_service_address", "request_timeout_s"),
            *("shutdown_grace_s", "limit_per_key", "limit_per_address", "trusted_proxies"),
            *("limit_failed_per_address", "limit_failed_per_prefix"),
        }
    )
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
    # How long requests under way may take after a signal to stop.
    shutdown_grace_s: int = Field(default=5, ge=1, le=60)

    # How often devices may call this process; empty means no limit. There is no limit by default:
    # counting takes a tenth of the time of a registration in this process, and even without a limit
    # no key fills more than half of the queue.
    limit_per_key: Annotated[Limit | None, NoDecode, BeforeValidator(limit_of)] = None
    # There is no limit by default, because all devices of a factory may have one address (NAT).
    limit_per_address: Annotated[Limit | None, NoDecode, BeforeValidator(limit_of)] = None
    # How often invalid API tokens may be tried at this process: from one address, and with the same
    # first characters from any address. Empty means no limit.
    limit_failed_per_address: Annotated[Limit | None, NoDecode, BeforeValidator(limit_of)] = Limit(
        10, 60
    )
    limit_failed_per_prefix: Annotated[Limit | None, NoDecode, BeforeValidator(limit_of)] = Limit(
        10, 60
    )

    # Where people and devices reach the gateway, as https://mooring.example.com: for the console's
    # cookies, its checks of the Host, and the addresses that it shows. The default is the address
    # that a request was sent to.
    public_url: str = Field(default="", pattern=r"\A(https?://[^/?#@\s]+/?)?\z")
    # Where brokers reach `registry_service.access`, as https://mooring.example.com:4003: the
    # console shows it in the settings for brokers. The default is the gateway's host, port 4003.
    access_url: str = Field(default="", pattern=r"\A(https?://[^/?#@\s]+/?)?\z")

    # The networks of reverse proxies in front of the gateway, separated by commas. Their
    # X-Forwarded-For has the client's address. No other hosts may be in these networks.
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(networks_of)] = ()
