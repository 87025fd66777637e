"""Configuration from the environment: frozen; all faults are reported at once."""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from chassis.hosts import unwrapped
from chassis.identities import Identity, names_of

Config = TypeVar("Config", bound="ProcessConfig")
# How a field is shown whose value is not.
SET, NOT_SET = "(set)", "(not set)"
# The parts of a URL that may hold a secret: the user with the password, and the query.
SECRET_IN_URL = re.compile(r"(?<=://)[^/?#\s]*@|[?#]\S*")
# A port to listen on; 0 means any free port.
Port = Annotated[int, Field(ge=0, le=65535)]


def _names(given: object) -> object:
    """Splits a text at commas."""
    if isinstance(given, str):
        return tuple(name for part in given.split(",") if (name := part.strip()))
    return given


# Names that are separated by commas.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]


class ProcessConfig(BaseSettings):
    """The variables of a process or command. Each field is set by the environment variable of its
    name in capitals. Each process has its own environment, so the names do not name the process.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    # The name of the process's module. A class without it is only a base class.
    process: ClassVar[str]
    # Earlier names of variables and the present names, in addition to those of base classes.
    renamed: ClassVar[Mapping[str, str]] = {}
    # The fields, besides those of the base classes, whose values are harmless: administrators can
    # read them in the list of processes. A field is not shown unless it is named here.
    shown: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def earlier_names(cls) -> dict[str, str]:
        """All earlier names, with the present names. `load` refuses an environment with one."""
        each = [vars(kind).get("renamed", {}) for kind in cls.__mro__]
        return {earlier: name for renamed in each for earlier, name in renamed.items()}

    @classmethod
    def shown_fields(cls) -> frozenset[str]:
        """The fields whose values are harmless, with those of the base classes."""
        each = (vars(kind).get("shown", frozenset()) for kind in cls.__mro__)
        return frozenset[str]().union(*each)

    def displayed(self) -> dict[str, str]:
        """The configuration without secrets, by the names of the variables: the values of harmless
        fields, and whether the others are set.
        """
        shown = self.shown_fields()
        return {
            name.upper(): _displayed(getattr(self, name), is_shown=name in shown)
            for name in type(self).model_fields
        }


class LogConfig(ProcessConfig):
    """The variables of a process with a log."""

    shown: ClassVar[frozenset[str]] = frozenset({"log_level"})

    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"


class MetricsConfig(LogConfig):
    """The variables of a process that runs until it is stopped."""

    shown: ClassVar[frozenset[str]] = frozenset({"metrics_host", "metrics_port"})

    # Where /healthz, /readyz and /metrics are served, without TLS; not at all unless the port is
    # set.
    metrics_host: str = "127.0.0.1"
    metrics_port: Port | None = None


class DatabaseConfig(LogConfig):
    """The variables of a process that uses the database."""

    # The role that the process uses; `chassis.database.require_schema` refuses any other.
    database_role: ClassVar[str]

    # A libpq URL for that role.
    database_url: str = Field(pattern=r"\Apostgres(ql)?://")


class BindConfig(ProcessConfig):
    """The variables of a process that listens."""

    shown: ClassVar[frozenset[str]] = frozenset({"bind_host", "bind_port", "drain_s"})

    bind_host: str = "127.0.0.1"
    bind_port: Port
    # The time in which callers notice NOT_SERVING, before connections close. Without it, calls
    # under way were cancelled in half of the stops that were tried.
    drain_s: float = Field(default=0.3, ge=0)


class HttpConfig(BindConfig):
    """The variables of a process that serves HTTP to clients. Beyond loopback it needs a
    certificate.
    """

    shown: ClassVar[frozenset[str]] = frozenset({"max_connections", "max_connections_per_address"})

    # The certificate for clients. `tls_*` of `ServiceConfig` is the certificate for services.
    https_cert_file: Path | None = None
    https_key_file: Path | None = None
    # The most connections of clients, in all and from one address (a /64 of IPv6).
    max_connections: int = Field(default=10_000, ge=1)
    max_connections_per_address: int = Field(default=4_000, ge=1)

    @model_validator(mode="after")
    def _is_private_or_has_https(self) -> "HttpConfig":
        files = self.https_cert_file, self.https_key_file
        if any(files) and not all(files):
            raise ValueError("HTTPS_CERT_FILE and HTTPS_KEY_FILE are needed together")
        if not any(files) and not is_loopback(self.bind_host):
            raise ValueError(
                f"BIND_HOST {self.bind_host} can be reached from other machines:"
                " configure HTTPS_CERT_FILE"
            )
        require_files(*files)
        return self


class ServiceConfig(MetricsConfig):
    """The variables of processes that make or receive gRPC calls.

    The calls between services are trusted in one of two ways: mutual TLS (`tls_*`, all three), or
    plain text on loopback with a secret for each caller. Under TLS, secrets are ignored.
    """

    # The secret that all services of earlier releases share. A service that is called accepts it in
    # this release, if this is set.
    service_secret_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_ca_file: Path | None = None

    @property
    def tls_files(self) -> tuple[Path | None, ...]:
        """The files of TLS. Either all are set, or none is."""
        return self.tls_cert_file, self.tls_key_file, self.tls_ca_file

    @model_validator(mode="after")
    def _has_its_files(self) -> "ServiceConfig":
        if any(self.tls_files) and not all(self.tls_files):
            raise ValueError("TLS_CERT_FILE, TLS_KEY_FILE and TLS_CA_FILE are needed together")
        require_files(*self.tls_files, self.service_secret_file)
        return self


class CallerConfig(ServiceConfig):
    """The variables of a service that calls others."""

    # The secret that the service sends on loopback, which is its own.
    caller_secret_file: Path | None = None

    @model_validator(mode="after")
    def _can_prove_itself(self) -> "CallerConfig":
        secrets = (self.caller_secret_file, self.service_secret_file)
        if not any(self.tls_files) and not any(secrets):
            raise ValueError("CALLER_SECRET_FILE is needed where TLS_CERT_FILE is not set")
        require_files(self.caller_secret_file)
        return self


class CalleeConfig(ServiceConfig):
    """The variables of a service that others call."""

    # The hashes of the callers' secrets on loopback (`chassis.identities.read_hashes`).
    caller_hashes_file: Path | None = None
    # The names in the certificates of callers, if they differ from the defaults.
    caller_identities: dict[Identity, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _can_tell_callers(self) -> "CalleeConfig":
        known = (self.caller_hashes_file, self.service_secret_file)
        if not any(self.tls_files) and not any(known):
            raise ValueError("CALLER_HASHES_FILE is needed where TLS_CERT_FILE is not set")
        require_files(self.caller_hashes_file)
        if Identity.SHARED in self.caller_identities:
            raise ValueError("CALLER_IDENTITIES: no certificate is of the caller shared")
        names_of(self.caller_identities)
        return self


def require_files(*files: Path | None) -> None:
    """Raises `ValueError` for a file that is configured and does not exist."""
    for file in files:
        if file is not None and not file.is_file():
            raise ValueError(f"{file} is not a file")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return unwrapped(ip_address(host)).is_loopback
    except ValueError:
        return False


def load(kind: type[Config]) -> Config:
    """The configuration. Raises `SystemExit`, with a line for each fault.

    A process refuses only the earlier names of its own variables, because several processes may
    share an environment.
    """
    heading = f"configuration of {kind.process}:\n  "
    names = kind.earlier_names()
    if earlier := sorted(names.keys() & _given(kind)):
        lines = [f"{name}: this variable is called {names[name]} now" for name in earlier]
        raise SystemExit(heading + "\n  ".join(lines))
    try:
        return kind()
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
            if fault["loc"]
            else fault["msg"].removeprefix("Value error, ")
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise SystemExit(heading + "\n  ".join(faults)) from None


def _displayed(value: object, *, is_shown: bool) -> str:
    if value is None or value == () or value == "":
        return NOT_SET
    if not is_shown:
        return SET
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return SECRET_IN_URL.sub("", text)


def _given(kind: type[ProcessConfig]) -> set[str]:
    """The variables that are set, in capitals, because names may be in any case."""
    ignores_empty = kind.model_config.get("env_ignore_empty")
    return {name.upper() for name, value in os.environ.items() if value or not ignores_empty}
