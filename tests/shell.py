"""Commands of the documents and of the console, run as a person would paste them."""

import os
import subprocess

from tests import debian
from tests.supervised import PATIENCE_S


def pasted(script: str, *programs: str) -> str:
    """All output of a shell that runs `script`, with these programs as if they were installed."""
    found = [debian.program(name) for name in programs]
    path = [str(program.parent) for program, _ in found]
    libraries = {environment.get("LD_LIBRARY_PATH", "") for _, environment in found} - {""}
    ended = subprocess.run(
        ["sh"],
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=PATIENCE_S,
        env={
            **os.environ,
            "PATH": ":".join([*path, os.environ["PATH"]]),
            "LD_LIBRARY_PATH": ":".join(sorted(libraries)),
        },
    )
    return ended.stdout
