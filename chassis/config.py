"""Configuration from the environment: frozen, and every fault of it reported at once."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Config = TypeVar("Config", bound=BaseSettings)


class ServiceConfig(BaseSettings):
    """What every service reads. A field is set by the variable of its name in capitals.

    The calls between services are trusted in one of two ways: mutual TLS (`tls_*`, all three), or
    plain text on loopback with a secret that the services share (`service_secret_file`).
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    service_secret_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_ca_file: Path | None = None
    # How long callers get to notice NOT_SERVING before connections close: without it, calls that
    # were on their way were cancelled in half of the stops that were tried.
    drain_s: float = Field(default=0.3, ge=0)
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"

    @model_validator(mode="after")
    def _is_trusted_somehow(self) -> "ServiceConfig":
        tls = (self.tls_cert_file, self.tls_key_file, self.tls_ca_file)
        if any(tls) and not all(tls):
            raise ValueError("TLS_CERT_FILE, TLS_KEY_FILE and TLS_CA_FILE are needed together")
        if not any(tls) and self.service_secret_file is None:
            raise ValueError("SERVICE_SECRET_FILE is needed where TLS_CERT_FILE is not set")
        for file in (*tls, self.service_secret_file):
            if file is not None and not file.is_file():
                raise ValueError(f"{file} is not a file")
        return self


def is_loopback(host: str) -> bool:
    """Whether nothing outside this machine can reach a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_listener(name: str, host: str, cert_file: Path | None, key_file: Path | None) -> None:
    """What may listen where: beyond loopback it has a certificate.

    `name` is what its settings begin with. Raises `ValueError`, which names the setting.
    """
    files = (cert_file, key_file)
    if any(files) and not all(files):
        raise ValueError(f"{name}_TLS_CERT_FILE and {name}_TLS_KEY_FILE are needed together")
    if not any(files) and not is_loopback(host):
        raise ValueError(
            f"{name}_HOST {host} can be reached from other machines: configure {name}_TLS_CERT_FILE"
        )
    for file in files:
        if file is not None and not file.is_file():
            raise ValueError(f"{file} is not a file")


def load(kind: type[Config]) -> Config:
    """The configuration, or `SystemExit` with a line for each thing that is wrong with it."""
    try:
        return kind()
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
            if fault["loc"]
            else fault["msg"].removeprefix("Value error, ")
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise SystemExit("configuration:\n  " + "\n  ".join(faults)) from None
