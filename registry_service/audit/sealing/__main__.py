"""`python -m registry_service.audit.sealing`: seals the audit log; `verify` checks the seals."""

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from functools import partial

from sqlalchemy.exc import DBAPIError

from chassis import log, loops, process
from chassis.config import load
from chassis.database import engine_of, require_schema
from chassis.loops import Loop, States, Turn
from chassis.probes import Probes, serve
from chassis.process_table import writer
from chassis.reporting import Reporter, reported
from chassis.tickets import read_public
from registry_service.audit.sealing.chain import Finding
from registry_service.audit.sealing.check_store import Checker
from registry_service.audit.sealing.config import SealingConfig
from registry_service.audit.sealing.lost_key import lost_key
from registry_service.audit.sealing.sealer import Sealer
from registry_service.audit.sealing.store import SealStore, reader
from registry_service.audit.sealing.verification import Report, verify
from registry_service.credentials import KeyRing
from registry_service.tables import SCHEMA_REVISION


@contextlib.asynccontextmanager
async def running(config: SealingConfig, probes: Probes | None = None) -> AsyncIterator[None]:
    """The whole process, until the block ends. Raises `SystemExit` if the last key is lost."""
    ring = KeyRing.read(config.audit_keys_file)
    async with contextlib.AsyncExitStack() as stack:
        engine = engine_of(config.database_url, pool_size=1)
        stack.push_async_callback(engine.dispose)
        await require_schema(engine, SCHEMA_REVISION, role=config.database_role)
        store = SealStore(engine)
        checker = Checker(engine, ring.keys, config.audit_archived_seal)
        lost = await lost_key(store, config.audit_keys_file, ring)
        if lost is not None:
            raise SystemExit(lost)
        loop = Loop("sealing", partial(_sealing, store, ring, checker, config.seal_interval_s))
        states, probes = States([loop.name]), probes or Probes()
        probes.ready_when(states.readiness)
        reporter = Reporter([config], probes, states)
        await stack.enter_async_context(reported(reporter, writer(engine)))
        await stack.enter_async_context(process.background(loops.run([loop], states)))
        yield


@contextlib.asynccontextmanager
async def _sealing(
    store: SealStore, ring: KeyRing, checker: Checker, interval_s: float
) -> AsyncIterator[Turn]:
    sealer = Sealer(store, ring, f"{socket.gethostname()}/{os.getpid()}")

    async def turn() -> float:
        await sealer.seal()
        if sealer.is_sealing:
            await checker.turn(asyncio.get_running_loop().time())
        return interval_s

    try:
        yield turn
    finally:
        await sealer.stop()


async def verified(
    config: SealingConfig, expected: tuple[int, bytes] | None, archived: int
) -> Report:
    """Checks the whole chain. Raises `SystemExit` if it cannot be checked."""
    ring = KeyRing.read(config.audit_keys_file)
    file = config.ticket_public_keys_file
    ticket_keys = read_public(file) if file is not None else None
    engine = engine_of(config.database_url, pool_size=1)
    try:
        async with reader(engine) as chain:
            return await verify(
                chain, ring.keys, expected=expected, archived=archived, ticket_keys=ticket_keys
            )
    except DBAPIError as error:
        raise SystemExit(f"the database: {str(error.orig).strip().splitlines()[0]}") from None
    finally:
        await engine.dispose()


def head(text: str) -> tuple[int, bytes]:
    """Parses a head that `verify` printed, as `id:mac`. Raises `ValueError`."""
    seal_id, _, mac = text.partition(":")
    return int(seal_id), bytes.fromhex(mac)


def sentence(finding: Finding) -> str:
    """A finding as one line of text."""
    where = f"seal {finding.seal_id}: " if finding.seal_id else ""
    which = f" (line {', '.join(map(str, finding.lines))})" if finding.lines else ""
    return f"{where}{finding.fault.value}{which}"


def show(report: Report) -> int:
    """Prints the findings; returns the exit status."""
    for finding in report.findings:
        print(sentence(finding))  # noqa: T201
    print(f"{report.seals} seals, {report.lines} lines, {report.waiting} not sealed yet")  # noqa: T201
    if report.unproved is None:
        why = "TICKET_PUBLIC_KEYS_FILE is not set"
        print(f"tickets were not checked: {why}", file=sys.stderr)  # noqa: T201
    if report.head is not None:
        print(f"head {report.head.id}:{report.head.mac.hex()}")  # noqa: T201
    return 1 if report.findings else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m registry_service.audit.sealing", description=__doc__
    )
    verb = parser.add_subparsers(dest="verb").add_parser("verify", help="check the chain of seals")
    verb.add_argument(
        "--expect", type=head, metavar="ID:MAC", help="a head that was printed before"
    )
    verb.add_argument(
        "--archived",
        type=int,
        default=0,
        metavar="ID",
        help="lines up to this seal may have been removed",
    )
    asked = parser.parse_args()
    config = load(SealingConfig)
    if asked.verb == "verify":
        raise SystemExit(show(asyncio.run(verified(config, asked.expect, asked.archived))))
    log.configure("sealing", config.log_level)
    probes = Probes()
    serve(probes, config.metrics_host, config.metrics_port)
    process.run(running(config, probes), probes)
