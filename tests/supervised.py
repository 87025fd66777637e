"""Runs of `python -m local` that tests start, watch and end."""

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path

from local.postgres import free_port
from tests import debian

REPOSITORY = Path(__file__).parents[1]
SERVICES = ("broker_service", "registry_service", "gateway")
SEALER = "registry_service.audit.sealing"
WORKER = "registry_service.worker"
BROKER_WORKER = "broker_service.worker"
ACCESS = "registry_service.access"
MOSQUITTO = "mosquitto"
# Long enough for two busy cores; the documented times are 30 s and 5 s.
PATIENCE_S = 60.0
POLL_S = 0.02


def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(POLL_S)


def descendants(pid: int) -> dict[int, str]:
    """The commands of the descendants of `pid`, by process id."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                command = (entry / "cmdline").read_text("utf-8", "replace")
            except OSError:
                continue  # The process has ended since.
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            commands[int(entry.name)] = command.replace("\0", " ").strip()
    # Parents come before their children.
    below = [pid]
    for parent in below:
        below += [child for child, above in parents.items() if above == parent]
    return {child: commands[child] for child in below[1:]}


def named(name: str, commands: Mapping[int, str]) -> list[int]:
    """The process ids of a service or another process; none while it restarts."""
    marks = {MOSQUITTO: "/mosquitto -c ", "postgres": "bin/postgres -D"}
    if name in marks:
        # First it is a shell whose command line contains the whole command; and a child that was
        # just forked still has its parent's command line.
        found = [
            pid
            for pid, command in commands.items()
            if marks[name] in command and not command.startswith("/bin/sh")
        ]
        return found[:1]
    # The sealer's name begins like the registry's.
    return [pid for pid, command in commands.items() if command.endswith(f"-m {name}")]


class Family:
    """The processes of a run, held by descriptors, because another process may get a process id."""

    def __init__(self, pid: int) -> None:
        self.commands = descendants(pid)
        self._descriptors: list[int] = []
        for member in (pid, *self.commands):
            with suppress(ProcessLookupError):  # The process has ended since.
                self._descriptors.append(os.pidfd_open(member))

    def child(self, name: str) -> int:
        """The process id of a service, or of the postmaster."""
        [pid] = named(name, self.commands)
        return pid

    def wait_for_the_end(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        living = self._descriptors
        while living:
            ended, _, _ = select.select(living, [], [], max(0, deadline - time.monotonic()))
            assert ended, self.commands
            living = [descriptor for descriptor in living if descriptor not in ended]
        for descriptor in self._descriptors:
            os.close(descriptor)


@dataclass(frozen=True)
class Answer:
    """An answer of the gateway."""

    status: int
    headers: Message
    text: str


class Run:
    """One `python -m local` with its own home and ports."""

    def __init__(self, home: Path) -> None:
        self.home = home
        names = ("GATEWAY", "REGISTRY", "BROKER", "ACCESS", "POSTGRES", "MQTT")
        ports: set[int] = set()
        # Among so many random ports, two are equal more often than expected.
        while len(ports) < len(names):
            ports.add(free_port())
        pairs = zip(names, ports, strict=True)
        self.settings = {f"{name}_PORT": str(port) for name, port in pairs}
        self.settings["MOORING_HOME"] = str(home)
        self.command = [sys.executable, "-m", "local"]
        self._process: subprocess.Popen[str] | None = None
        self._heard = ""

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def begin(self) -> None:
        """Starts it without waiting."""
        self._heard = ""
        # If these tests run under `nohup`, the program must not inherit that SIGHUP is ignored.
        inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            self._process = subprocess.Popen(
                self.command,
                cwd=REPOSITORY,
                env={**os.environ, **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            signal.signal(signal.SIGHUP, inherited)

    def find_mosquitto(self) -> None:
        """Makes the run find the tests' Mosquitto, as if it were installed."""
        program, environment = debian.program("mosquitto")
        self.settings["PATH"] = f"{program.parent}:{environment['PATH']}"
        if "LD_LIBRARY_PATH" in environment:
            self.settings["LD_LIBRARY_PATH"] = environment["LD_LIBRARY_PATH"]

    def start(self) -> str:
        """Starts it; returns its output when it is ready."""
        self.begin()
        assert self.process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = self.process.stdout.readline()
            assert line, self.outcome()
            said += line
        return said

    def family(self) -> Family:
        return Family(self.process.pid)

    def child(self, name: str) -> int:
        """The process id of a service once it runs: after a kill it takes a while."""
        found: list[int] = []

        def is_found() -> bool:
            found[:] = named(name, descendants(self.process.pid))
            return bool(found)

        until(is_found)
        [pid] = found
        return pid

    def outcome(self) -> tuple[int, str]:
        """The exit status and stderr, once it has ended."""
        _, said = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, self._heard + said

    def heard(self) -> str:
        """Its stderr until now."""
        assert self.process.stderr is not None
        stderr = self.process.stderr.fileno()
        while select.select([stderr], [], [], 0)[0] and (chunk := os.read(stderr, 65536)):
            self._heard += chunk.decode(errors="replace")
        return self._heard

    def refusal(self) -> str:
        """Starts it, and returns why it refused."""
        self.begin()
        status, said = self.outcome()
        assert status == 1
        return said

    def stop(self, way: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(way)
        return self.outcome()

    def end(self) -> None:
        """Ends all its processes, whatever the test did."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
        self._process.communicate(timeout=PATIENCE_S)

    def credentials(self) -> dict[str, str]:
        lines = shlex.split((self.home / "credentials.env").read_text(), comments=True)
        return dict(line.split("=", 1) for line in lines)

    def ask(self, method: str, path: str, token: str = "", body: object = None) -> tuple[int, str]:
        """Calls the gateway; returns the status and the body."""
        response = self.answer(method, path, token, body)
        return response.status, response.text

    def answer(self, method: str, path: str, token: str = "", body: object = None) -> "Answer":
        """Calls the gateway; returns the whole answer."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        port = int(self.settings["GATEWAY_PORT"])
        with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as gateway:
            gateway.request(method, path, json.dumps(body), headers)
            response = gateway.getresponse()
            return Answer(response.status, response.headers, response.read().decode())

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def brokers(self) -> dict[str, int]:
        """The ids of the brokers by name, as an administrator sees them."""
        token = self.credentials()["ADMIN_TOKEN"]
        status, answer = self.ask("GET", "/api/v1/brokers", token)
        assert status == 200, answer
        return {broker["name"]: broker["id"] for broker in json.loads(answer)["items"]}


def registered(run: Run) -> int:
    """The status of a registration; a 503 must say when to retry."""
    key = run.credentials()["PROVISIONING_KEY"]
    body = {
        "uuid": "one",
        "deviceName": "One",
        "deviceType": "test",
        "deviceApiKey": "test-api-key",
    }
    answer = run.answer("POST", "/api/v1/device/register", key, body)
    assert answer.status != 503 or int(answer.headers["Retry-After"]) >= 1
    return answer.status
