"""The configuration that administrators can read holds no secret, in any class of configuration."""

import re
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from chassis.address_policy import AddressPolicy
from chassis.audit import SECRET_NAME
from chassis.config import NOT_SET, SET, ProcessConfig
from gateway.config import GatewayConfig
from gateway.limits import limit_of
from registry_service.admission.reconciler.config import EnforcementConfig
from registry_service.config import RegistryServiceConfig
from tests.configurations import configurations

KINDS = sorted(
    {kind for kinds in configurations().values() for kind in kinds}, key=lambda kind: kind.__name__
)
CANARY = "canary-8d1f"
# Names of fields that say that the value is a secret, or where one is.
SUSPECT = re.compile(rf"{SECRET_NAME.pattern}|(^|_)(file|keys?|url)(_|$)")
# The URL of a broker has no user, and is in the answers to devices. The limits are counts.
HARMLESS = {"mqtt_broker_url", "limit_per_key", "previous_password_s"}


def planted_in(kind: type[ProcessConfig], names: Iterable[str], value: Any) -> ProcessConfig:
    """A configuration in which these fields have the value, whatever their types."""
    fields: dict[str, Any] = {**dict.fromkeys(kind.model_fields), **dict.fromkeys(names, value)}
    return kind.model_construct(**fields)


def test_every_class_is_tried() -> None:
    assert {GatewayConfig, RegistryServiceConfig, EnforcementConfig} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_declared_fields_show_their_values(kind: type[ProcessConfig]) -> None:
    shown = kind.shown_fields()
    assert shown <= kind.model_fields.keys()
    hidden = kind.model_fields.keys() - shown
    # As strings, paths and secrets, as the classes have them, and in tuples and mappings.
    for value in (
        CANARY,
        Path(f"/etc/{CANARY}"),
        SecretStr(CANARY),
        (CANARY,),
        {CANARY: (CANARY,)},
        CANARY.encode(),
    ):
        planted = planted_in(kind, hidden, value)
        displayed = planted.displayed()
        assert displayed.keys() == {name.upper() for name in kind.model_fields}
        assert CANARY not in str(displayed)
        assert {displayed[name.upper()] for name in hidden} <= {SET}
    unset = planted_in(kind, kind.model_fields, None).displayed()
    assert set(unset.values()) <= {NOT_SET}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_declared_field_is_called_like_a_secret(kind: type[ProcessConfig]) -> None:
    assert {name for name in kind.shown_fields() if SUSPECT.search(name)} <= HARMLESS


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_secrets_in_urls_are_not_shown_by_declared_fields_either(
    kind: type[ProcessConfig],
) -> None:
    for url in (
        f"mqtts://user:{CANARY}@host:8883",
        f"mqtts://{CANARY}@host:8883",
        f"wss://user:pa@ss{CANARY}@host/path",
        f"wss://host/path?token={CANARY}",
        f"wss://host/path#{CANARY}",
        f"postgresql://u:{CANARY}@h1,h2/db?sslpassword={CANARY}",
        f"dns:///host:1?{CANARY}",
    ):
        planted = planted_in(kind, kind.model_fields, url)
        assert CANARY not in str(planted.displayed())


def test_values_are_shown_as_they_are_written() -> None:
    gateway = GatewayConfig.model_construct(
        limit_per_key=limit_of("600/minute"),
        limit_per_address=None,
        trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("::1/128")),
        registry_service_address="dns:///registry:50052",
    ).displayed()
    assert gateway["LIMIT_PER_KEY"] == "600/minute"
    assert gateway["LIMIT_PER_ADDRESS"] == NOT_SET
    assert gateway["TRUSTED_PROXIES"] == "10.0.0.0/8, ::1/128"
    assert gateway["REGISTRY_SERVICE_ADDRESS"] == "dns:///registry:50052"
    assert gateway["LIMIT_FAILED_PER_PREFIX"] == "10/minute"
    enforcement = planted_in(EnforcementConfig, EnforcementConfig.model_fields, None)
    enforcement = enforcement.model_copy(
        update={
            "broker_address_policy": AddressPolicy.parse("10.0.0.0/8, 192.0.2.1"),
            "server_keys_file": Path("keys.json"),
        }
    )
    displayed = enforcement.displayed()
    assert displayed["BROKER_ADDRESS_POLICY"] == "10.0.0.0/8,192.0.2.1/32"
    assert displayed["SERVER_KEYS_FILE"] == SET
    assert displayed["DATABASE_URL"] == NOT_SET
