"""What the rows run on: one real PostgreSQL, databases in it, the real services as processes.

Every database is a copy of one with the schema, one fleet, one provisioning key and one default
broker with a certificate. So all rows begin alike, and the pgbench script uses the same tables.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from bench.certificate import ca_certificate
from bench.http import ask
from chassis.identities import Identity
from local import interrupts
from local.config import LocalConfig
from local.database import bring_up_to_date, url_for
from local.home import SERVICE_ROLES, Home, Trust
from local.interrupts import ChildExits
from local.postgres import Postgres, free_port, prepare
from local.probes import is_answering, is_ready, is_serving
from local.processes import Service, wait_until_ready
from local.seed import seeded
from local.services import Addresses, environments

TEMPLATE = "mooring"
BROKER = {"protocol": "mqtts", "host": "mqtt.example.com", "port": 8883}

T = TypeVar("T")


@dataclass(frozen=True)
class Database:
    """A row's own database. Its owner has all rights in it."""

    name: str
    owner_url: str
    superuser_url: str

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Commits one statement and returns its rows. `statement` is a constant of the bench."""
        return _executed(self.owner_url, statement, *values)

    def number(self, statement: str, *values: object) -> int:
        """The one number that `statement` returns."""
        [(value,)] = self.execute(statement, *values)
        return int(value)

    def devices(self) -> int:
        """The number of registered devices."""
        return self.number("SELECT count(*) FROM devices")

    def forget_devices(self) -> None:
        """Empties the table of devices and its indexes."""
        self.execute("TRUNCATE devices")
        self.execute("UPDATE provisioning_keys SET devices_provisioned = 0")
        self.checkpoint()

    def checkpoint(self) -> None:
        """Writes all changed pages, so that this does not happen during a measurement."""
        _executed(self.superuser_url, "CHECKPOINT")


@dataclass(frozen=True)
class Services:
    """The services, running on one database."""

    database: Database
    gateway_url: str
    gateway_port: int
    broker_address: str
    registry_address: str
    access_url: str
    # The secret of an operator's own services.
    resolver_secret: str
    # The secrets of the services.
    trust: Trust
    # One key, or several separated by commas, which are used in turn.
    provisioning_key: str
    admin_token: str
    # The port of the first broker service's metrics.
    broker_metrics_port: int
    # The process ids of the first replica of each.
    pids: dict[str, int]
    # The URLs of all replicas.
    gateway_urls: tuple[str, ...]


class Stage:
    """PostgreSQL and the keys that the services share, until the end of `opened`."""

    def __init__(self, home: Home, server: Postgres, exits: ChildExits) -> None:
        """Use `opened`."""
        self.home = home
        self.server = server
        self.credentials: dict[str, str] = {}
        self._exits = exits
        # These come first: keys that are missing while passwords exist count as lost.
        self._server_keys = home.server_keys()
        self._encryption_keys = home.encryption_keys()
        self._passwords = home.role_passwords()
        self._audit_keys = home.audit_keys()
        self._known: dict[Callable[[Stage], Any], Any] = {}

    @property
    def key_hash(self) -> str:
        """Hex of the hash of the provisioning key, as in the database."""
        return hashlib.sha256(self.credentials["PROVISIONING_KEY"].encode()).hexdigest()

    def postgres_version(self) -> str:
        """The version of the server."""
        [(version,)] = _executed(self.server.superuser_url(), "SHOW server_version")
        return str(version)

    def once(self, measured: "Callable[[Stage], T]") -> T:
        """Calls `measured` with this stage once; later calls return the same result."""
        if measured not in self._known:
            self._known[measured] = measured(self)
        found: T = self._known[measured]
        return found

    def make_database(self, purpose: str, like: Database | None = None) -> Database:
        """A new database, or a copy of an unused one; it lasts as long as the stage."""
        made = self._named(f"{purpose}_{secrets.token_hex(4)}")
        template = like.name if like else TEMPLATE
        _executed(
            self.server.superuser_url(),
            # Copies files, because a copy through the log would write everything twice.
            f"CREATE DATABASE {made.name} TEMPLATE {template} STRATEGY file_copy OWNER mooring",
        )
        made.checkpoint()
        return made

    @contextmanager
    def database(self, purpose: str, like: Database | None = None) -> Iterator[Database]:
        """Like `make_database`, but dropped at the end of the block."""
        made = self.make_database(purpose, like)
        try:
            yield made
        finally:
            _executed(self.server.superuser_url(), f"DROP DATABASE {made.name} WITH (FORCE)")

    @contextmanager
    def configured(self, setting: str, value: str) -> Iterator[None]:
        """Changes a setting that needs no restart until the end of the block."""
        superuser = self.server.superuser_url()
        _executed(superuser, f"ALTER SYSTEM SET {setting} = '{value}'")
        _executed(superuser, "SELECT pg_reload_conf(), pg_sleep(0.5)")
        try:
            yield
        finally:
            _executed(superuser, f"ALTER SYSTEM RESET {setting}")
            _executed(superuser, "SELECT pg_reload_conf()")

    @contextmanager
    def statements_of(self, role: str, database: Database) -> Iterator[list[str]]:
        """The statements of `role` in `database` during the block; the list is filled at
        its end.
        """
        found: list[str] = []
        mark = f" {role}@{database.name} LOG:  "
        with self.configured("log_statement", "all"):
            begun = self.server.log.stat().st_size
            yield found
            with self.server.log.open("rb") as file:
                file.seek(begun)
                lines = file.read().decode(errors="replace").splitlines()
            found += [line for line in lines if mark in line]

    @contextmanager
    def services(self, database: Database, *, replicas: int = 1) -> Iterator[Services]:
        """Starts the services on `database`; they are ready, and run until the end of the block.

        With `replicas` of each, every gateway calls every registry, and these every broker service.
        """
        trust = self.home.trust()
        configs = [_config(self.home.path) for _ in range(replicas)]
        at = [Addresses.of(config) for config in configs]
        rings = self._server_keys, self._encryption_keys, self._audit_keys
        logs = self.home.path / "logs" / database.name
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as stops:
            lock = os.open(self.home.path / "services.lock", os.O_RDWR | os.O_CREAT, 0o600)
            stops.callback(os.close, lock)
            services = []
            for number, config in enumerate(configs):
                configured = environments(
                    config, database.owner_url, self._passwords, trust, *rings
                )
                configured["registry_service"]["BROKER_SERVICE_ADDRESS"] = _all(
                    one.broker for one in at
                )
                configured["gateway"]["BROKER_SERVICE_ADDRESS"] = _all(one.broker for one in at)
                configured["gateway"]["REGISTRY_SERVICE_ADDRESS"] = _all(one.registry for one in at)
                for module, environment in configured.items():
                    log = logs / f"{module}-{number}.log"
                    service = Service(module, environment, log, lock)
                    stops.callback(service.stop)
                    service.start()
                    services.append(service)
            checks: dict[str, Callable[[], bool]] = {}
            for number, (config, one) in enumerate(zip(configs, at, strict=True)):
                checks |= {
                    f"broker_service {number}": partial(is_serving, one.broker),
                    f"registry_service {number}": partial(is_serving, one.registry),
                    f"gateway {number}": partial(is_ready, config.gateway_port),
                    f"access {number}": partial(is_answering, config.access_port),
                }
            wait_until_ready([self.server, *services], checks, self._exits)
            if not self.credentials:
                self.credentials = self._seed(configs[0], database)
            yield Services(
                database,
                at[0].gateway,
                configs[0].gateway_port,
                at[0].broker,
                at[0].registry,
                at[0].access,
                trust.secrets[Identity.RESOLVER].read_text().strip(),
                trust,
                self.credentials["PROVISIONING_KEY"],
                self.credentials["ADMIN_TOKEN"],
                configs[0].broker_metrics_port or 0,
                {service.module: service.pid for service in reversed(services)},
                tuple(one.gateway for one in at),
            )
            # If a service died, the row has measured something else.
            for service in services:
                service.demand_alive()

    def furnish(self) -> None:
        """Makes the database that the others are copies of."""
        owner_url = prepare(self.server, self._passwords["mooring"])
        with interrupts.at_once():
            bring_up_to_date(owner_url, {role: self._passwords[role] for role in SERVICE_ROLES})
        with self.services(self._named(TEMPLATE)):
            pass

    def _seed(self, config: LocalConfig, database: Database) -> dict[str, str]:
        password = self._passwords["mooring_registry"]
        made = seeded(
            gateway_port=config.gateway_port,
            database_url=url_for("mooring_registry", password, database.owner_url),
            known={},
        )
        port = config.gateway_port
        change = BROKER | {"ca_cert": ca_certificate()}
        ask(port, "PATCH", "/api/v1/brokers/1", made["ADMIN_TOKEN"], change)
        return made

    def _named(self, name: str) -> Database:
        owner_url = self.server.url("mooring", self._passwords["mooring"], name)
        return Database(name, owner_url, self.server.superuser_url(name))


@contextmanager
def opened(folder: Path) -> Iterator[Stage]:
    """A stage in `folder`, which is private and temporary. Raises `CannotRun`."""
    with Postgres(folder / "home") as server:
        stage = Stage(Home(folder / "home"), server, ChildExits())
        stage.furnish()
        yield stage


def _executed(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with interrupts.at_once(), psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def _all(addresses: Iterable[str]) -> str:
    """One gRPC target for all addresses."""
    listed = ",".join(addresses)
    return f"ipv4:{listed}" if "," in listed else listed


def _config(home: Path) -> LocalConfig:
    ports = [free_port() for _ in range(6)]
    return LocalConfig(
        gateway_port=ports[0],
        registry_port=ports[1],
        broker_port=ports[2],
        postgres_port=ports[3],
        broker_metrics_port=ports[4],
        access_port=ports[5],
        mooring_home=home,
        mooring_database_url=None,
        mqtt_broker_url=None,
        log_level="WARNING",
    )
