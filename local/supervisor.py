"""Runs a PostgreSQL, the services and, if it is installed, a Mosquitto, until Ctrl-C.

The order is: the lock of the home, PostgreSQL, migrations, the brokers' passwords, the services,
their first data, Mosquitto, the worker; then it restarts what ends. Stopping is in reverse order,
and leaves no process.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from chassis.config import load
from chassis.identities import Identity
from local import interrupts
from local.config import LocalConfig
from local.database import bind_passwords, bring_up_to_date, demand_audit_key, url_for
from local.errors import CannotRun
from local.home import SERVICE_ROLES, Home
from local.interrupts import ChildExits
from local.local_broker import entrusted, looked_at
from local.mosquitto import INSTALL, MOSQUITTO, USERNAME, Installed, Login, Mosquitto, installed
from local.postgres import Postgres, prepare
from local.probes import (
    demand_free,
    is_answering,
    is_listening,
    is_ready,
    is_serving,
)
from local.processes import Child, Service, blaming, keep_running, wait_until_ready
from local.revival import tell
from local.seed import Administrator, seeded
from local.services import BROKER_WORKER, WORKER, Addresses, environments
from local.tether import setpriv

WELCOME = """\
Mooring is ready.
  gateway      {gateway}
  docs         {gateway}/docs
  console      {gateway}{sign_in}
               (signs in once, within 5 minutes; later, with ADMIN_TOKEN of the credentials)
  credentials  {file}
  mqtt         {mqtt}
Register a device:
  curl -X POST {gateway}/api/v1/device/register \\
    -H "Authorization: Bearer {key}" \\
    -H "Content-Type: application/json" \\
    -d '{{"uuid": "test-device-123", "deviceName": "Test Device", \
"deviceType": "raspberry-pi-4", "deviceApiKey": "test-api-key"}}'
Ctrl-C stops everything."""
NO_MOSQUITTO = f"no Mosquitto 2 here: {INSTALL}"
NOT_OURS = (
    "no Mosquitto was started: the Local Broker is elsewhere, or managed by another installation"
)


def supervise() -> int:
    """Returns the exit status: 0 after a signal, 1 after an error."""
    try:
        config = load(LocalConfig)
        with ExitStack() as stops:
            run(config, stops)
    except KeyboardInterrupt:
        tell("stopped")
        return 0
    except CannotRun as reason:
        tell(str(reason))
    except OSError as error:
        if error.filename is None:
            raise
        tell(f"{error.filename}: {error.strerror}")
    return 1


def run(config: LocalConfig, stops: ExitStack) -> None:
    """Does everything except stopping; `stops` collects how to stop what was started."""
    setpriv()  # Fails before anything is changed.
    forget_foreign_settings(config)
    home = Home(config.mooring_home)
    lock = stops.enter_context(home.occupied())
    # Read first: if they are missing while other files exist, they were lost.
    server_keys = home.server_keys()
    passwords, trust = home.role_passwords(), home.trust()
    encryption_keys = home.encryption_keys()
    audit_keys = home.audit_keys()
    known = home.credentials()
    found = installed()
    for setting, port in config.service_ports().items():
        demand_free(setting, port)
    if found is not None:
        demand_free("MQTT_PORT", config.mqtt_port)

    children: list[Child] = []
    with blaming(children):
        owner_url = database(config, home, passwords["mooring"], children, stops)
        with interrupts.at_once():
            bring_up_to_date(owner_url, {role: passwords[role] for role in SERVICE_ROLES})
        broker_url = url_for("mooring_broker", passwords["mooring_broker"], owner_url)
        for where in bind_passwords(broker_url, encryption_keys):
            tell(f"not used, because it cannot be read: {where}")
        sealer_url = url_for("mooring_sealer", passwords["mooring_sealer"], owner_url)
        demand_audit_key(sealer_url, audit_keys)
        exits = ChildExits()
        configured = environments(
            config, owner_url, passwords, trust, server_keys, encryption_keys, audit_keys
        )
        # The workers would find no brokers yet: one looks again only after some seconds, and the
        # other would call the local broker down, which has not been started.
        last = {name: configured.pop(name) for name in (WORKER, BROKER_WORKER)}
        children += start_services(configured, config, home, lock, stops)
        at = Addresses.of(config)
        wait_until_ready(
            children,
            {
                "broker_service": lambda: is_serving(at.broker),
                "registry_service": lambda: is_serving(at.registry),
                "gateway": lambda: is_ready(config.gateway_port),
                "registry_service.access": lambda: is_answering(config.access_port),
            },
            exits,
        )
        made = seeded(
            gateway_port=config.gateway_port,
            database_url=url_for("mooring_registry", passwords["mooring_registry"], owner_url),
            known=known,
            mqtt_port=config.mqtt_port,
        )
        admin = Administrator(config.gateway_port, made["ADMIN_TOKEN"])
        checks: dict[str, Callable[[], bool]] = {}
        mqtt = NO_MOSQUITTO
        if found is not None:
            mqtt = NOT_OURS
            login = Login(USERNAME, home.mosquitto_password())
            broker_id = entrusted(admin, login, config.mqtt_port)
            if broker_id is not None:
                mqtt = f"mqtt://localhost:{config.mqtt_port}"
                mosquitto = start_mosquitto(found, config.mqtt_port, login, home, lock, stops)
                children.append(mosquitto)
                wait_until_ready(
                    children, {MOSQUITTO: lambda: is_listening(config.mqtt_port)}, exits
                )
                if mosquitto.has_only_the_login:
                    looked = partial(looked_at, admin, broker_id)
                    before = looked()
                    checks[WORKER] = lambda: looked() not in (None, before)
        children += start_services(last, config, home, lock, stops)
        wait_until_ready(children, checks, exits)
    operator = url_for("mooring_operator", passwords["mooring_operator"], owner_url)
    home.write_credentials(
        {
            "GATEWAY_URL": at.gateway,
            **made,
            # The role may also read the audit log and its seals, so that the log can be verified.
            "DATABASE_URL": operator,
            "BROKER_SERVICE_ADDRESS": at.broker,
            "REGISTRY_SERVICE_ADDRESS": at.registry,
            "ACCESS_URL": at.access,
            **({"MQTT_URL": mqtt} if mqtt.startswith("mqtt://") else {}),
            "RESOLVER_SECRET_FILE": str(trust.secrets[Identity.RESOLVER]),
            **({"SERVICE_SECRET_FILE": str(trust.shared)} if trust.shared else {}),
            "AUDIT_KEYS_FILE": str(audit_keys),
            "TICKET_PUBLIC_KEYS_FILE": str(trust.ticket_public_keys),
        }
    )
    file, key = home.credentials_file, made["PROVISIONING_KEY"]
    welcome = WELCOME.format(
        gateway=at.gateway, sign_in=admin.sign_in_path(), file=file, mqtt=mqtt, key=key
    )
    print(welcome, flush=True)
    keep_running(children, exits)


def forget_foreign_settings(config: LocalConfig) -> None:
    """Drops environment variables with which libraries would use other servers than ours.

    A PGSSLMODE or a proxy would affect connections to loopback. A database of the user's own may
    well need its PG variables.
    """
    for name in list(os.environ):
        is_libpq = name.startswith("PG") and config.mooring_database_url is None
        if is_libpq or name.lower().endswith("_proxy"):
            del os.environ[name]


def database(
    config: LocalConfig, home: Home, password: str, children: list[Child], stops: ExitStack
) -> str:
    """The libpq URL of the database for its owner: the user's own, or one that is started here."""
    if config.mooring_database_url is not None:
        return config.mooring_database_url.get_secret_value()
    postgres = Postgres(home.path, config.postgres_port)
    stops.callback(postgres.stop)
    postgres.claim()
    demand_free("POSTGRES_PORT", config.postgres_port)
    postgres.start()
    children.append(postgres)
    return prepare(postgres, password)


def start_services(
    configured: Mapping[str, Mapping[str, str]],
    config: LocalConfig,
    home: Home,
    lock: int,
    stops: ExitStack,
) -> list[Service]:
    """Starts a service for each module in `configured`, with its environment."""
    services = []
    for module, environment in configured.items():
        ports = {
            name: port
            for name, port in config.service_ports().items()
            if str(port) in (environment.get("BIND_PORT"), environment.get("METRICS_PORT"))
        }
        service = Service(module, environment, home.log(module), lock, ports)
        stops.callback(service.stop)
        service.start()
        services.append(service)
    return services


def start_mosquitto(
    found: Installed, port: int, login: Login, home: Home, lock: int, stops: ExitStack
) -> Mosquitto:
    """Starts the broker of this machine; at first it holds only `login`."""
    mosquitto = Mosquitto(found, home.mosquitto, port, login, home.log(MOSQUITTO), lock)
    stops.callback(mosquitto.stop)
    mosquitto.start()
    return mosquitto
