"""What the process that drives brokers reads from its environment."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from chassis.address_policy import DEFAULT, AddressPolicy
from chassis.config import CallerConfig


def _policy(given: object) -> object:
    """Raises `ValueError` for what is no policy."""
    return AddressPolicy.parse(given) if isinstance(given, str) else given


Policy = Annotated[AddressPolicy, NoDecode, BeforeValidator(_policy)]


class EnforcementConfig(CallerConfig):
    """A field is set by the variable of its name in capitals."""

    # libpq URL; the role mooring_registry.
    registry_database_url: str = Field(pattern=r"\Apostgres(ql)?://")
    # A gRPC target; it says which brokers are driven, and with what login.
    broker_service_address: str = "127.0.0.1:50051"
    # Passwords are derived with them.
    server_keys_file: Path
    # Which addresses of brokers are connected to: any, not-local, public, or networks with commas.
    broker_address_policy: Policy = DEFAULT
    # How often a Mosquitto is compared with what it should hold, if nothing has changed.
    drift_check_s: float = Field(default=30.0, gt=0)
    # How long nobody else drives brokers after this process' last sign of life.
    enforcement_lease_s: float = Field(default=5.0, gt=0)
    # Where to serve /metrics on loopback; off unless set.
    enforcement_metrics_port: int | None = Field(default=None, ge=0, le=65535)
