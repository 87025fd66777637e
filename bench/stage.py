"""What the rows play on: one real PostgreSQL, databases in it, the real services as processes.

Every database is a copy of one that has the schema, one fleet, one provisioning key and one default
broker with a certificate, so that rows begin alike and the pgbench script meets the same tables.
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
    """One of a row's own. Its owner may do everything in it."""

    name: str
    owner_url: str
    superuser_url: str

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of one statement, committed. `statement` is ours and no caller's."""
        return _executed(self.owner_url, statement, *values)

    def number(self, statement: str, *values: object) -> int:
        """The one number that `statement` asks for."""
        [(value,)] = self.execute(statement, *values)
        return int(value)

    def devices(self) -> int:
        """How many are registered."""
        return self.number("SELECT count(*) FROM devices")

    def forget_devices(self) -> None:
        """Leaves the table and its indexes as new."""
        self.execute("TRUNCATE devices")
        self.execute("UPDATE provisioning_keys SET devices_provisioned = 0")
        self.checkpoint()

    def checkpoint(self) -> None:
        """Has everything written that is not to be written while something is measured."""
        _executed(self.superuser_url, "CHECKPOINT")


@dataclass(frozen=True)
class Services:
    """The three of them, running on one database."""

    database: Database
    gateway_url: str
    gateway_port: int
    broker_address: str
    registry_address: str
    access_url: str
    # Of the services of an operator's own.
    resolver_secret: str
    # What the services themselves know one another by.
    trust: Trust
    # One key, or several that take turns with commas between them.
    provisioning_key: str
    admin_token: str
    # Where the first broker service serves its metrics.
    broker_metrics_port: int
    # Of the first replica of each.
    pids: dict[str, int]
    # Of all replicas.
    gateway_urls: tuple[str, ...]


class Stage:
    """Holds what was started until the block of `opened` ends."""

    def __init__(self, home: Home, server: Postgres, exits: ChildExits) -> None:
        """Use `opened`."""
        self.home = home
        self.server = server
        self.credentials: dict[str, str] = {}
        self._exits = exits
        # First: keys that are missing beside passwords count as lost.
        self._server_keys = home.server_keys()
        self._encryption_keys = home.encryption_keys()
        self._passwords = home.role_passwords()
        self._audit_keys = home.audit_keys()
        self._known: dict[Callable[[Stage], Any], Any] = {}

    @property
    def key_hash(self) -> str:
        """Hex of what the database keeps of the provisioning key."""
        return hashlib.sha256(self.credentials["PROVISIONING_KEY"].encode()).hexdigest()

    def postgres_version(self) -> str:
        """Of the server."""
        [(version,)] = _executed(self.server.superuser_url(), "SHOW server_version")
        return str(version)

    def once(self, measured: "Callable[[Stage], T]") -> T:
        """What `measured` finds on this stage; asked again, what it found."""
        if measured not in self._known:
            self._known[measured] = measured(self)
        found: T = self._known[measured]
        return found

    def make_database(self, purpose: str, like: Database | None = None) -> Database:
        """A fresh one, or a copy of one that nobody uses now; it lasts as long as the stage."""
        made = self._named(f"{purpose}_{secrets.token_hex(4)}")
        template = like.name if like else TEMPLATE
        _executed(
            self.server.superuser_url(),
            # In files: what is copied through the log has to be written twice.
            f"CREATE DATABASE {made.name} TEMPLATE {template} STRATEGY file_copy OWNER mooring",
        )
        made.checkpoint()
        return made

    @contextmanager
    def database(self, purpose: str, like: Database | None = None) -> Iterator[Database]:
        """As `make_database` makes it, dropped at the end of the block."""
        made = self.make_database(purpose, like)
        try:
            yield made
        finally:
            _executed(self.server.superuser_url(), f"DROP DATABASE {made.name} WITH (FORCE)")

    @contextmanager
    def configured(self, setting: str, value: str) -> Iterator[None]:
        """The server with another value of a setting that takes no restart."""
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
        """What `role` executes in `database` while the block lasts; filled when it ends."""
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
        """The three services on `database`, ready, until the end of the block.

        With `replicas` of each, every gateway asks every registry, and these every broker service.
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
                told = environments(config, database.owner_url, self._passwords, trust, *rings)
                told["registry_service"]["BROKER_SERVICE_ADDRESS"] = _all(one.broker for one in at)
                told["gateway"]["BROKER_SERVICE_ADDRESS"] = _all(one.broker for one in at)
                told["gateway"]["REGISTRY_SERVICE_ADDRESS"] = _all(one.registry for one in at)
                for module, environment in told.items():
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
            # A row whose services died in it has measured something else.
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
    """A stage in `folder`, which is private and short-lived. Raises `CannotRun`."""
    with Postgres(folder / "home") as server:
        stage = Stage(Home(folder / "home"), server, ChildExits())
        stage.furnish()
        yield stage


def _executed(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with interrupts.at_once(), psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def _all(addresses: Iterable[str]) -> str:
    """One target of gRPC for all of them."""
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
