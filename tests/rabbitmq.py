"""A real RabbitMQ that asks an HTTP server about devices, until the end of a test.

The node has its own epmd and its own cookie, and listens on free ports of 127.0.0.1 only. There is
no AMQP listener. The user `administrator` belongs to the node, which asks no server about it.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from local.postgres import free_port
from local.tether import tethered
from tests import debian
from tests.broker_versions import RABBITMQ, Version
from tests.documented import block
from tests.supervised import PATIENCE_S, Family, until

SERVER = "usr/lib/rabbitmq/lib/rabbitmq_server-*"
ERLANG = "usr/lib/erlang"
NODE = "mooring@localhost"
PLUGINS = (
    "rabbitmq_mqtt",
    "rabbitmq_auth_backend_http",
    # Available, but not in use, because "auth_backends" does not name it.
    "rabbitmq_auth_backend_cache",
    "rabbitmq_management",
)
# As in docs/brokers/rabbitmq.md.
DOCUMENTED_URL = "http://127.0.0.1:4003/mbs_…/rabbitmq"
ASKED = ("user", "vhost", "resource", "topic")
# Only root may listen there, and no process does, so no device may connect.
NO_SERVER = "http://127.0.0.1:1"
# The flags of RabbitMQ's own script, without busy waiting, which would load the cores.
ARGUMENTS = (
    *("-noinput", "-boot", "start_sasl", "-s", "rabbit", "boot", "+W", "w"),
    *("+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"),
    *("-syslog", "logger", "[]", "-syslog", "syslog_error_logger", "false"),
    *("-kernel", "prevent_overlapping_partitions", "false"),
    *("-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-start_epmd", "false"),
)


@dataclass(frozen=True)
class Rabbitmq:
    """A running node."""

    mqtt_port: int
    management_port: int
    # The variables that Erlang needs.
    epmd_port: int
    distribution_port: int
    # The user with all rights in the management API.
    username: str
    password: str = field(repr=False)
    pid: int
    log: Path
    _erl_call: tuple[str, ...] = field(repr=False)
    _environment: Mapping[str, str] = field(repr=False)

    def ask_at(self, auth_url: str) -> None:
        """Makes the node ask the server at `auth_url` about devices.

        It sends POST requests to /user, /vhost, /resource and /topic below the URL.
        """
        for what in ASKED:
            self.set("rabbitmq_auth_backend_http", f"{what}_path", f'"{auth_url}/{what}"')

    def set(self, application: str, name: str, term: str) -> None:
        """Sets a parameter of the running node to an Erlang term. A test must set it back."""
        assert self._call("application", "set_env", f"[{application},{name},{term}]") == "ok"

    def is_running(self) -> bool:
        return self._call("rabbit", "is_running", "[]") == "true"

    def manage(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Calls the management API; returns the status and the JSON, or None for an empty
        answer.
        """
        token = b64encode(f"{self.username}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        connection = HTTPConnection("127.0.0.1", self.management_port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = response.read()
            return response.status, json.loads(answer) if answer else None

    def forget(self) -> None:
        """Refuses all devices, ends every connection, and deletes queues, sessions and messages.

        Retained messages stay.
        """
        self.ask_at(NO_SERVER)
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        for method, path, body in (
            ("DELETE", "/api/vhosts/%2F", None),
            ("PUT", "/api/vhosts/%2F", {}),
            ("PUT", f"/api/permissions/%2F/{self.username}", everything),
        ):
            status, answer = self.manage(method, path, body)
            assert status in (201, 204), answer

    def _call(self, module: str, function: str, arguments: str) -> str:
        done = subprocess.run(
            [*self._erl_call, "-a", f"{module} {function} {arguments}"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.stdout


@contextlib.contextmanager
def running(
    folder: Path, *, auth_url: str = NO_SERVER, version: Version = RABBITMQ[0]
) -> Iterator[Rabbitmq]:
    """A node that keeps all its files in `folder`. It takes 10 to 20 s to start.

    Start it from the main thread, because it ends with the thread that started it.
    """
    root, libraries = debian.tree("rabbitmq-server", SERVER, version.suite)
    # Erlang may be installed without RabbitMQ: then only its missing parts were unpacked.
    programs = next(
        found for base in (root, Path("/")) for found in base.glob(f"{ERLANG}/erts-*/bin")
    )
    with _reserved(4) as (epmd_port, distribution_port, mqtt_port, management_port):
        password = secrets.token_hex(16)
        _write(folder, mqtt_port, management_port, password, auth_url, version)
        environment = {
            **{name: value for name, value in os.environ.items() if not _is_ours(name)},
            **libraries,
            **_where(folder, root, programs),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
        }
        epmd = [str(programs / "epmd"), "-address", "127.0.0.1", "-port", str(epmd_port)]
        node = [str(programs / "erlexec"), *ARGUMENTS]
        with (
            _process(epmd, environment, folder, "epmd.log"),
            _process(node, environment, folder, "rabbitmq.log") as process,
        ):
            server = Rabbitmq(
                mqtt_port=mqtt_port,
                management_port=management_port,
                epmd_port=epmd_port,
                distribution_port=distribution_port,
                username="administrator",
                password=password,
                pid=process.pid,
                log=folder / "rabbitmq.log",
                _erl_call=(str(programs / "erl_call"), "-sname", NODE),
                _environment=environment,
            )
            until(lambda: process.poll() is not None or server.is_running())
            assert process.poll() is None, server.log.read_text(errors="replace")
            yield server


def _where(folder: Path, root: Path, programs: Path) -> dict[str, str]:
    """The environment variables with the paths of all files, so that installed ones are
    not used.
    """
    [server] = root.glob(SERVER)
    return {
        "HOME": str(folder),
        "ROOTDIR": str(programs.parents[1]),
        "BINDIR": str(programs),
        "EMU": "beam",
        "PROGNAME": "erl",
        "ERL_LIBS": f"{server / 'plugins'}:{root / ERLANG / 'lib'}",
        "RABBITMQ_HOME": str(server),
        "RABBITMQ_PLUGINS_DIR": str(server / "plugins"),
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        # These files do not exist, so that those of an installed node are not read.
        "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
    }


def _write(
    folder: Path, mqtt_port: int, management_port: int, password: str, url: str, version: Version
) -> None:
    """Writes a file for the start of the node, which only its owner may read."""
    is_4 = version.is_at_least("4.0")
    files = {
        ".erlang.cookie": secrets.token_hex(16),
        "enabled_plugins": f"[{','.join(PLUGINS)}].\n",
        "rabbitmq.conf": "listeners.tcp = none\n"
        f"mqtt.listeners.tcp.1 = 127.0.0.1:{mqtt_port}\n"
        f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management_port}\n"
        + block("brokers/rabbitmq.md", "ini", "# rabbitmq.conf").replace(DOCUMENTED_URL, url)
        + (block("brokers/rabbitmq.md", "ini", "# also in RabbitMQ 4") if is_4 else "")
        + f"default_user = administrator\ndefault_pass = {password}\n"
        "log.console = true\nlog.file = false\ndisk_free_limit.absolute = 1MB\n",
    }
    for name, text in files.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text)


def _is_ours(name: str) -> bool:
    """Whether a variable of the environment would change the node."""
    return name.startswith(("RABBITMQ_", "ERL_", "ERLANG_"))


@contextlib.contextmanager
def _reserved(count: int) -> Iterator[list[int]]:
    """Free ports of 127.0.0.1 that no other process gets before the server listens there.

    They are bound here, because servers that start slowly cannot do it in time. A server may bind
    them too, because it sets SO_REUSEADDR and nothing listens; a search for free ports does not
    find them.
    """
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", free_port()))
        yield [one.getsockname()[1] for one in held]


@contextlib.contextmanager
def _process(
    command: list[str], environment: Mapping[str, str], folder: Path, log: str
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / log).open("wb") as output:
        process = subprocess.Popen(
            tethered(command, signal.SIGKILL),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield process
    finally:
        # Ends its child processes too, each of which has its own process group.
        family = Family(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        family.wait_for_the_end()
