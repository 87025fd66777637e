"""A service as a process: it stops on a signal, even while it starts, and ends with a loop."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chassis import process
from chassis.tickets import SigningKeys
from local.postgres import free_port

BROKEN = """
import asyncio, contextlib
from chassis import process

async def loop():
    raise ZeroDivisionError("the loop is broken")

@contextlib.asynccontextmanager
async def service():
    async with process.background(loop()):
        yield

process.run(service())
"""


def test_a_broken_loop_ends_the_process_with_its_reason() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BROKEN], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert "the loop is broken" in ended.stderr


def test_it_stops_while_it_waits_for_its_database(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 32)
    ring = tmp_path / "ring"
    key = base64.b64encode(bytes(32)).decode()
    ring.write_text(json.dumps({"active": 1, "keys": [{"id": 1, "secret": key}]}))
    public = tmp_path / "public"
    public.write_text(SigningKeys.read(ring).public_ring())
    process = subprocess.Popen(
        [sys.executable, "-m", "broker_service"],
        env={
            **os.environ,
            "SERVICE_SECRET_FILE": str(secret),
            "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{free_port()}/x",
            "ENCRYPTION_KEYS_FILE": str(ring),
            "TICKET_PUBLIC_KEYS_FILE": str(public),
            "BIND_PORT": "0",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as said:
        line = said.readline()
        assert "the database did not answer" in line
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


async def test_a_loop_that_misses_its_cancellation_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "CANCEL_AGAIN_S", 0.05)
    missed = 0

    async def missing() -> None:
        nonlocal missed
        while missed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                missed += 1
        await asyncio.Event().wait()

    async with asyncio.timeout(10), process.background(missing()):
        await asyncio.sleep(0)
    # The second cancellation ends a wait that began after the first.
    assert missed == 2
