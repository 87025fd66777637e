"""A real Mosquitto with TLS, until the end of a test."""

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import trustme

from tests import debian
from tests.broker_versions import MOSQUITTO, Version
from tests.documented import block
from tests.supervised import until

# Options that 2.1 replaces, and the pages that say by what.
SUCCESSORS = {"acl_file": "brokers/mosquitto.md", "password_file": "taking-over-a-fleet.md"}


@contextlib.contextmanager
def mosquitto(
    folder: Path,
    port: int,
    ca: trustme.CA,
    users: dict[str, str],
    version: Version = MOSQUITTO[0],
) -> Iterator[None]:
    """Listens on 127.0.0.1:`port` with a certificate for localhost by `ca`, for `users` only.

    Each user may use the topics below iot/device/ that `users` gives it, and no others.
    """
    program, environment = debian.program("mosquitto", version.suite)
    passwords = program.parent.parent / "bin" / "mosquitto_passwd"
    certificate = ca.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    everybody = folder / "passwords"
    everybody.touch(mode=0o600)
    for username, password in users.items():
        subprocess.run(
            [passwords, "-b", everybody, username, password],
            check=True,
            env={**os.environ, **environment},
            capture_output=True,
        )
    (folder / "acl").write_text(
        "".join(
            f"user {username}\ntopic readwrite iot/device/{username.removeprefix('device_')}/#\n"
            for username in users
        )
    )
    conf = (
        f"listener {port} 127.0.0.1\n"
        f"certfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
        f"password_file {everybody}\nacl_file {folder}/acl\nallow_anonymous false\n"
    )
    with configured(folder, port, of_version(conf, version), version):
        yield


def of_version(conf: str, version: Version) -> str:
    """A configuration for 2.0, as the version needs it."""
    if not version.is_at_least("2.1"):
        return conf
    for option, page in SUCCESSORS.items():
        successor = block(page, "conf", f"# instead of {option}\n")
        # The file is the one that the option names.
        successor = re.sub(r"(?m)^(plugin_opt_\w+) .*$", r"\1 \\1", successor)
        conf = re.sub(rf"(?m)^{option} (.*)\n", successor, conf)
    return conf


def plugin(name: str, version: Version) -> Path:
    """The path of the plugin with this file name."""
    program, _ = debian.program("mosquitto", version.suite)
    return next(program.parent.parent.glob(f"lib/**/{name}"))


@contextlib.contextmanager
def configured(
    folder: Path, port: int, conf: str, version: Version = MOSQUITTO[0]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a Mosquitto on 127.0.0.1:`port` with the configuration `conf`. Its log is in `folder`.

    Plugins are found at the version's path.
    """
    program, environment = debian.program("mosquitto", version.suite)
    conf = re.sub(
        r"(?m)^plugin .*/(.*)$", lambda found: f"plugin {plugin(found[1], version)}", conf
    )
    # Started by root it would drop its rights, and could not read its files.
    user = f"user {'root' if os.geteuid() == 0 else 'nobody'}\n"
    (folder / "mosquitto.conf").write_text(conf + user)
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-c", folder / "mosquitto.conf"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "mosquitto.log").read_text()
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


def _listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
