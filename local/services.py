"""The complete environment of each service."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chassis.identities import Identity
from local.config import LocalConfig
from local.database import url_for
from local.home import Trust

HOST = "127.0.0.1"
WORKER = "registry_service.worker"
BROKER_WORKER = "broker_service.worker"
# The local broker is on this machine, and brokers that a person tries may be too.
ANY_ADDRESS = {"BROKER_ADDRESS_POLICY": "any"}
# From the supervisor's environment: variables that Python, libpq and the C library read.
INHERITED = (
    *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH"),
    # Not PYTHONDONTWRITEBYTECODE, because compiling everything at every start takes seconds.
    *("PYTHONPATH", "PYTHONPYCACHEPREFIX"),
)


@dataclass(frozen=True)
class Addresses:
    """The addresses of the services."""

    broker: str
    registry: str
    gateway: str
    # The service that brokers ask.
    access: str

    @classmethod
    def of(cls, config: LocalConfig) -> "Addresses":
        """Loopback with the configured ports; URLs for the services that speak HTTP."""
        return cls(
            broker=f"{HOST}:{config.broker_port}",
            registry=f"{HOST}:{config.registry_port}",
            gateway=f"http://{HOST}:{config.gateway_port}",
            access=f"http://{HOST}:{config.access_port}",
        )


def environments(
    config: LocalConfig,
    owner_url: str,
    passwords: Mapping[str, str],
    trust: Trust,
    server_keys: Path,
    encryption_keys: Path,
    audit_keys: Path,
) -> dict[str, dict[str, str]]:
    """The environment of each service by the name of its module, in the order of their start."""
    addresses = Addresses.of(config)
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    if config.log_level is not None:
        inherited["LOG_LEVEL"] = config.log_level
    # A service recognises its callers by the hashes of their secrets.
    shared = {} if trust.shared is None else {"SERVICE_SECRET_FILE": str(trust.shared)}
    called = {**inherited, **shared, "CALLER_HASHES_FILE": str(trust.hashes)}

    def secret_of(identity: Identity) -> dict[str, str]:
        return {"CALLER_SECRET_FILE": str(trust.secrets[identity])}

    def database_of(role: str) -> dict[str, str]:
        return {"DATABASE_URL": url_for(role, passwords[role], owner_url)}

    mqtt = {} if config.mqtt_broker_url is None else {"MQTT_BROKER_URL": config.mqtt_broker_url}
    return {
        "broker_service": {
            **called,
            "TICKET_PUBLIC_KEYS_FILE": str(trust.ticket_public_keys),
            **mqtt,
            **_metrics(config.broker_metrics_port),
            **_bound(config.broker_port),
            **database_of("mooring_broker"),
            "ENCRYPTION_KEYS_FILE": str(encryption_keys),
            **ANY_ADDRESS,
        },
        "registry_service": {
            **called,
            **secret_of(Identity.REGISTRY),
            "TICKET_KEYS_FILE": str(trust.ticket_keys),
            **mqtt,
            **_metrics(config.registry_metrics_port),
            **_bound(config.registry_port),
            **database_of("mooring_registry"),
            "BROKER_SERVICE_ADDRESS": addresses.broker,
            "SERVER_KEYS_FILE": str(server_keys),
        },
        "gateway": {
            **inherited,
            **secret_of(Identity.GATEWAY),
            **_metrics(config.gateway_metrics_port),
            **_bound(config.gateway_port),
            "REGISTRY_SERVICE_ADDRESS": addresses.registry,
            "BROKER_SERVICE_ADDRESS": addresses.broker,
            "ACCESS_URL": addresses.access,
        },
        # The next two call no other service, so they need no secret.
        "registry_service.access": {
            **inherited,
            **_metrics(config.access_metrics_port),
            **_bound(config.access_port),
            **database_of("mooring_access"),
        },
        "registry_service.audit.sealing": {
            **inherited,
            **_metrics(config.sealing_metrics_port),
            **database_of("mooring_sealer"),
            "AUDIT_KEYS_FILE": str(audit_keys),
        },
        BROKER_WORKER: {
            **inherited,
            **_metrics(config.broker_worker_metrics_port),
            **database_of("mooring_broker"),
            "ENCRYPTION_KEYS_FILE": str(encryption_keys),
            **ANY_ADDRESS,
        },
        WORKER: {
            **inherited,
            **secret_of(Identity.ENFORCEMENT),
            **_metrics(config.worker_metrics_port),
            **database_of("mooring_registry"),
            "BROKER_SERVICE_ADDRESS": addresses.broker,
            "SERVER_KEYS_FILE": str(server_keys),
            **ANY_ADDRESS,
        },
    }


def _bound(port: int) -> dict[str, str]:
    return {"BIND_HOST": HOST, "BIND_PORT": str(port)}


def _metrics(port: int | None) -> dict[str, str]:
    return {} if port is None else {"METRICS_PORT": str(port)}
