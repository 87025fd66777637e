"""The environment variables of the loop `enforcement`, in addition to the worker's."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from chassis.address_policy import DEFAULT, PolicySetting
from chassis.config import CallerConfig
from registry_service.config import RegistryDatabaseConfig


class EnforcementConfig(RegistryDatabaseConfig, CallerConfig):
    """Each field is set by the environment variable of its name in capitals."""

    process: ClassVar[str] = "registry_service.worker"
    shown: ClassVar[frozenset[str]] = frozenset(
        {
            *("broker_service_address", "broker_address_policy"),
            *("drift_check_s", "enforcement_lease_s"),
        }
    )

    # A gRPC target; this service returns the managed brokers and their logins.
    broker_service_address: str = "127.0.0.1:50051"
    # The keys that passwords are derived with.
    server_keys_file: Path
    # Allowed addresses of brokers: any, not-local, public, or networks separated by commas.
    broker_address_policy: PolicySetting = DEFAULT
    # How often the clients of a Mosquitto are compared if nothing has changed.
    drift_check_s: float = Field(default=30.0, gt=0)
    # After how long without a renewed lease another process takes over.
    enforcement_lease_s: float = Field(default=5.0, gt=0)
