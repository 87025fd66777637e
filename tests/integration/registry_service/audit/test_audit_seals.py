"""The chain of seals detects every change, even by the owner of the database."""

import asyncio
import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chassis.database import engine_of
from registry_service.audit.sealing import checking
from registry_service.audit.sealing import sealer as sealing
from registry_service.audit.sealing.__main__ import running
from registry_service.audit.sealing.chain import Fault, Finding
from registry_service.audit.sealing.check_store import Checker
from registry_service.audit.sealing.config import SealingConfig
from registry_service.audit.sealing.sealer import Sealer
from registry_service.audit.sealing.store import SealStore, reader
from registry_service.audit.sealing.verification import Report, verify
from registry_service.credentials import KeyRing
from tests.stack import PATIENCE_S, Database

RING = KeyRing(1, {1: bytes(range(32))})
PATIENT_S = 3600.0
FORGE = (
    "INSERT INTO audit_log (id, at, actor, actor_id, action, subject, request_id)"
    " OVERRIDING SYSTEM VALUE VALUES (%s, %s, 'eve', '', 'broker.delete', '1', '')"
)


def write(database: Database, count: int = 1, actor: str = "eve") -> list[int]:
    """Writes lines in one transaction, as the registry does; returns their ids."""
    found = database.execute(
        "INSERT INTO audit_log (actor, actor_id, action, subject, before, after, request_id)"
        " SELECT %s, 'id', 'broker.update', n::text, '{\"port\": 1883.10}', '{\"port\": 1}', 'r'"
        " FROM generate_series(1, %s) n RETURNING id",
        actor,
        count,
    )
    return [line_id for (line_id,) in found]


class Chain:
    """A database with the audit log, its sealers, and the check of its seals."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.engine = engine_of(database.url("mooring_sealer"), pool_size=4)

    @property
    def checker(self) -> Checker:
        return Checker(self.engine, RING.keys)

    def sealer(self, *, lookback_s: float = 0.0, lease_s: float = 15.0, name: str = "a") -> Sealer:
        return Sealer(SealStore(self.engine, lease_s), RING, name, lookback_s=lookback_s)

    async def check(self, **options: Any) -> Report:
        async with reader(self.engine) as chain:
            return await verify(chain, RING.keys, **{"patience_s": PATIENT_S, **options})

    async def findings(self, **options: Any) -> list[Finding]:
        return (await self.check(**options)).findings

    async def faults(self, **options: Any) -> set[Fault]:
        return {finding.fault for finding in await self.findings(**options)}


@pytest.fixture
async def chain(database: Database) -> AsyncIterator[Chain]:
    made = Chain(database)
    yield made
    await made.engine.dispose()


@pytest.fixture
async def sealed(chain: Chain) -> Chain:
    """Three seals over nine lines; later lines with an earlier time are not accepted."""
    sealer = chain.sealer()
    for _ in range(3):
        write(chain.database, 3)
        assert await sealer.seal() == 3
    await sealer.stop()
    assert await chain.findings() == []
    return chain


async def test_written_lines_are_sealed_and_verified(chain: Chain) -> None:
    sealer = chain.sealer()
    assert (await chain.check()).head is None
    assert await sealer.seal() == 0
    ids = write(chain.database, 3)
    assert (await chain.check()).waiting == 3
    assert await sealer.seal() == 3
    assert await sealer.seal() == 0
    report = await chain.check()
    assert (report.findings, report.seals, report.lines, report.waiting) == ([], 1, 3, 0)
    assert report.head is not None
    assert report.head.ids == f"{{[{ids[0]},{ids[-1] + 1})}}"


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE audit_log SET actor = 'bob' WHERE id = 5", (Fault.LINES_CHANGED, 2)),
        ("UPDATE audit_log SET actor_id = 'x' WHERE id = 5", (Fault.LINES_CHANGED, 2)),
        ("UPDATE audit_log SET action = 'a.b' WHERE id = 1", (Fault.LINES_CHANGED, 1)),
        ("UPDATE audit_log SET subject = '9' WHERE id = 9", (Fault.LINES_CHANGED, 3)),
        ("UPDATE audit_log SET refusal = 'NO' WHERE id = 5", (Fault.LINES_CHANGED, 2)),
        ("UPDATE audit_log SET count = 2 WHERE id = 5", (Fault.LINES_CHANGED, 2)),
        ("UPDATE audit_log SET before = NULL WHERE id = 5", (Fault.LINES_CHANGED, 2)),
        ("UPDATE audit_log SET before = 'null' WHERE id = 5", (Fault.LINES_CHANGED, 2)),
        (
            "UPDATE audit_log SET after = '{\"port\": 1.0000000000000001}' WHERE id = 5",
            (Fault.LINES_CHANGED, 2),
        ),
        ("UPDATE audit_log SET details = '{}' WHERE id = 5", (Fault.LINES_CHANGED, 2)),
        ("UPDATE audit_log SET request_id = '' WHERE id = 5", (Fault.LINES_CHANGED, 2)),
        (
            "UPDATE audit_log SET at = at + interval '1 microsecond' WHERE id = 5",
            (Fault.LINES_CHANGED, 2),
        ),
        ("UPDATE audit_log SET at = 'infinity' WHERE id = 5", (Fault.LINES_CHANGED, 2)),
        ("UPDATE audit_log SET at = '0044-03-15 BC' WHERE id = 5", (Fault.LINES_CHANGED, 2)),
        (
            "UPDATE audit_log SET subject = 3 - subject::int WHERE id IN (4, 5)",
            (Fault.LINES_CHANGED, 2),
        ),
        ("DELETE FROM audit_log WHERE id = 5", (Fault.LINES_REMOVED, 2)),
        ("DELETE FROM audit_log WHERE id = 9", (Fault.LINES_REMOVED, 3)),
        ("DELETE FROM audit_seals WHERE id = 2", (Fault.SEAL_REMOVED, 2)),
        ("DELETE FROM audit_seals WHERE id = 1", (Fault.SEAL_REMOVED, 1)),
        ("UPDATE audit_seals SET mac = digest WHERE id = 2", (Fault.SEAL_CHANGED, 2)),
        ("UPDATE audit_seals SET digest = mac WHERE id = 2", (Fault.SEAL_CHANGED, 2)),
        ("UPDATE audit_seals SET ids = '{[4,6)}', lines = 2 WHERE id = 2", (Fault.SEAL_CHANGED, 2)),
        ("UPDATE audit_seals SET ids = '{(,)}' WHERE id = 3", (Fault.SEAL_CHANGED, 3)),
        ("UPDATE audit_seals SET sealed_at = 'infinity' WHERE id = 3", (Fault.SEAL_CHANGED, 3)),
        ("UPDATE audit_seals SET closed_id = 0 WHERE id = 3", (Fault.SEAL_CHANGED, 3)),
        ("UPDATE audit_seals SET closed_at = '-infinity' WHERE id = 3", (Fault.SEAL_CHANGED, 3)),
        ("UPDATE audit_seals SET key_id = 2 WHERE id = 2", (Fault.KEY_MISSING, 2)),
        ("UPDATE audit_seals SET id = 7 WHERE id = 3", (Fault.SEAL_CHANGED, 7)),
    ],
)
async def test_changes_by_the_owner_are_found(
    sealed: Chain, statement: str, finding: tuple[Fault, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await sealed.checker.check()).findings == []
    sealed.database.execute(statement)
    assert finding in {(each.fault, each.seal_id) for each in await sealed.findings()}
    # The check of the newest seals finds it, too.
    found = await sealed.checker.check()
    assert finding in {(each.fault, each.seal_id) for each in found.findings}
    # Sealing more lines does not hide the change.
    write(sealed.database)
    await sealed.sealer(name="b").seal()
    assert finding in {(each.fault, each.seal_id) for each in await sealed.findings()}
    # That check does not forget it when other seals are the newest.
    monkeypatch.setattr(checking, "SEALS", 1)
    found = await sealed.checker.check()
    assert finding in {(each.fault, each.seal_id) for each in found.findings}


async def test_no_seal_follows_one_that_was_changed(sealed: Chain) -> None:
    """Otherwise a changed seal could make the sealer seal an inserted line, and be restored."""
    sealed.database.execute("DELETE FROM audit_log WHERE id = 5")
    sealed.database.execute(FORGE, 5, "now")
    sealed.database.execute("UPDATE audit_seals SET closed_id = 0, closed_at = '2020-01-01'")
    write(sealed.database)
    assert await sealed.sealer(name="b").seal() == 0
    assert sealed.database.execute("SELECT max(id) FROM audit_seals") == [(3,)]


async def test_swapped_rows_are_found(sealed: Chain) -> None:
    sealed.database.execute("ALTER TABLE audit_log ALTER id DROP IDENTITY")
    for old, new in ((4, -1), (5, 4), (-1, 5)):
        sealed.database.execute("UPDATE audit_log SET id = %s WHERE id = %s", new, old)
    (finding,) = await sealed.findings()
    assert (finding.fault, finding.seal_id) == (Fault.LINES_CHANGED, 2)


async def test_an_inserted_line_is_found_and_not_sealed(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids of failed transactions are free, so a line could be inserted with one of them."""
    sealer = chain.sealer()
    write(chain.database, 2)
    chain.database.execute("SELECT nextval('audit_log_id_seq')")
    write(chain.database, 2)
    assert await sealer.seal() == 4
    write(chain.database)
    await sealer.seal()
    assert await chain.findings() == []
    chain.database.execute(FORGE, 3, "now")
    write(chain.database)
    assert await sealer.seal() == 1
    assert await chain.findings() == [Finding(Fault.LINES_INSERTED, lines=[3])]
    assert (await chain.checker.check()).findings == [Finding(Fault.LINES_INSERTED, lines=[3])]
    monkeypatch.setattr(checking, "SEALS", 1)
    assert (await chain.checker.check()).findings == [Finding(Fault.LINES_INSERTED, lines=[3])]
    chain.database.execute("DELETE FROM audit_log WHERE id = 3")
    assert (await chain.checker.check()).findings == []


@pytest.mark.parametrize("at", ["2026-01-01", "-infinity", "0044-03-15 BC"])
async def test_a_new_line_with_an_old_time_is_found_and_not_sealed(sealed: Chain, at: str) -> None:
    sealed.database.execute(FORGE, 100, at)
    assert await sealed.sealer(name="b").seal() == 0
    assert await sealed.findings() == [Finding(Fault.LINES_INSERTED, lines=[100])]
    assert (await sealed.checker.check()).findings == await sealed.findings()


async def test_a_removed_end_is_found_with_the_known_head(sealed: Chain) -> None:
    head = (await sealed.check()).head
    assert head is not None
    expected = (head.id, head.mac)
    assert await sealed.findings(expected=expected) == []
    assert (await sealed.checker.check()).findings == []
    sealed.database.execute("DELETE FROM audit_log WHERE id > 6")
    sealed.database.execute("DELETE FROM audit_seals WHERE id > 2")
    assert await sealed.findings() == []
    assert await sealed.findings(expected=expected) == [Finding(Fault.HEAD_REMOVED, 3)]
    # Sealing other lines in their place does not hide it.
    write(sealed.database, 3, actor="bob")
    await sealed.sealer(name="b").seal()
    assert await sealed.findings() == []
    assert await sealed.findings(expected=expected) == [Finding(Fault.HEAD_REMOVED, 3)]
    # The check of the newest seals knows the head, and goes on expecting it.
    for _ in range(2):
        assert (await sealed.checker.check()).findings == [Finding(Fault.HEAD_REMOVED, 3)]


async def test_a_fault_that_was_mended_is_found_no_more(
    sealed: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed.database.execute("UPDATE audit_log SET actor = 'bob' WHERE id = 5")
    assert [one.seal_id for one in (await sealed.checker.check()).findings] == [2]
    write(sealed.database)
    await sealed.sealer(name="b").seal()
    monkeypatch.setattr(checking, "SEALS", 1)
    assert [one.seal_id for one in (await sealed.checker.check()).findings] == [2]
    sealed.database.execute("UPDATE audit_log SET actor = 'eve' WHERE id = 5")
    assert (await sealed.checker.check()).findings == []


async def test_the_newest_seals_are_checked_up_to_a_number_of_lines(
    sealed: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lines, first in ((1, 3), (6, 2), (8, 2), (9, 1)):
        monkeypatch.setattr(checking, "LINES", lines)
        found = await sealed.checker.check()
        assert (found.first_seal_id, found.last_seal_id) == (first, 3)
        assert (found.lines, found.findings) == (12 - 3 * first, [])


async def test_lines_of_archived_seals_may_be_missing(sealed: Chain) -> None:
    sealed.database.execute(
        "DELETE FROM audit_log l USING audit_seals s WHERE s.id <= 2 AND l.id <@ s.ids"
    )
    assert await sealed.faults() == {Fault.LINES_REMOVED}
    report = await sealed.check(archived=2)
    assert (report.findings, report.seals, report.lines) == ([], 3, 3)
    assert (await Checker(sealed.engine, RING.keys, archived=2).check()).findings == []
    assert {one.fault for one in (await sealed.checker.check()).findings} == {Fault.LINES_REMOVED}
    sealed.database.execute("DELETE FROM audit_log WHERE id = 7")
    assert await sealed.faults(archived=2) == {Fault.LINES_REMOVED}


async def test_lines_that_are_committed_late_are_in_a_later_seal(chain: Chain) -> None:
    sealer = chain.sealer(lookback_s=60)
    insert = (
        "INSERT INTO audit_log (actor, actor_id, action, subject, request_id)"
        " VALUES (%s, '', 'broker.update', '1', '') RETURNING id"
    )
    url = chain.database.url("mooring")
    with psycopg.connect(url) as slow, psycopg.connect(url) as never:
        row = slow.execute(insert, ["slow"]).fetchone()
        assert row
        (late,) = row
        never.execute(insert, ["never"])
        write(chain.database, 5)
        assert await sealer.seal() == 5
        write(chain.database, 2)
        assert await sealer.seal() == 2
        assert await chain.findings() == []
        slow.commit()
        never.rollback()
    assert (await chain.check()).waiting == 1
    assert await sealer.seal() == 1
    report = await chain.check()
    assert (report.findings, report.lines, report.waiting) == ([], 8, 0)
    assert report.head is not None
    assert report.head.ids == f"{{[{late},{late + 1})}}"
    chain.database.execute("UPDATE audit_log SET actor = 'fast' WHERE id = %s", late)
    assert await chain.findings() == [Finding(Fault.LINES_CHANGED, 3, [late])]


async def test_lines_committed_while_no_sealer_runs_are_sealed_afterwards(chain: Chain) -> None:
    """A sealer misses nothing, even after a break that is longer than its lookback."""
    url = chain.database.url("mooring")
    with psycopg.connect(url) as slow:
        slow.execute(
            "INSERT INTO audit_log (actor, actor_id, action, subject, request_id)"
            " VALUES ('slow', '', 'broker.update', '1', '')"
        )
        write(chain.database, 5)
        first = chain.sealer(lookback_s=2.0)
        assert await first.seal() == 5
        await first.stop()
        slow.commit()
    await asyncio.to_thread(chain.database.execute, "SELECT pg_sleep(2.5)")
    assert await chain.sealer(lookback_s=2.0, name="b").seal() == 1
    assert await chain.findings() == []


async def test_many_lines_are_sealed_a_batch_at_a_time(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "BATCH", 10)
    write(chain.database, 95)
    assert await chain.sealer().seal() == 95
    report = await chain.check()
    assert (report.findings, report.seals, report.lines) == ([], 10, 95)


async def test_only_one_of_several_sealers_seals(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "BATCH", 3)
    sealers = [chain.sealer(name=f"s{number}", lookback_s=60) for number in range(4)]
    for _ in range(8):
        write(chain.database, 10)
        sealed = await asyncio.gather(*(sealer.seal() for sealer in sealers))
        assert sum(sealed) == 10
    report = await chain.check()
    assert (report.findings, report.lines, report.waiting) == ([], 80, 0)


async def test_another_sealer_takes_over_and_the_first_one_notices(chain: Chain) -> None:
    first, second = chain.sealer(name="first"), chain.sealer(name="second")
    write(chain.database)
    assert await first.seal() == 1
    write(chain.database)
    assert await second.seal() == 0
    # As if its lease had not been renewed in time.
    chain.database.execute("UPDATE leases SET expires_at = clock_timestamp() - interval '1 s'")
    assert await second.seal() == 1
    write(chain.database)
    assert await first.seal() == 0
    assert await second.seal() == 1
    await second.stop()
    write(chain.database)
    assert await first.seal() == 1
    assert await chain.findings() == []
    assert chain.database.execute("SELECT holder, term FROM leases") == [("first", 3)]


async def test_a_sealer_that_froze_in_a_transaction_cannot_fork_the_chain(chain: Chain) -> None:
    """Its lease expires while its transaction is open; the next sealer waits for the end of it."""
    first, second = SealStore(chain.engine, lease_s=0), chain.sealer(name="second")
    write(chain.database, 2)
    term = await first.lease.take("first")
    assert term
    async with first.turn(term):
        taking = asyncio.create_task(second.seal())
        done, _ = await asyncio.wait([taking], timeout=0.3)
        assert not done
    assert await taking == 2
    assert await chain.findings() == []


def kill_while_it_seals(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "registry_service.audit.sealing"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as sealer:
        assert sealer.stdout is not None
        for line in sealer.stdout:
            if json.loads(line)["message"] == "sealed":
                break
        sealer.kill()


async def test_a_killed_sealer_leaves_an_unbroken_chain(
    database: Database, chain: Chain, tmp_path: Path
) -> None:
    write(database, 20_000)
    environment = environment_of(database, tmp_path)
    for _ in range(3):
        kill_while_it_seals(environment)
        database.execute("UPDATE leases SET expires_at = clock_timestamp()")
    write(database)
    async with running(config(database, tmp_path)), asyncio.timeout(PATIENCE_S):
        while (await chain.check()).waiting:
            await asyncio.sleep(0.05)
    report = await chain.check()
    assert (report.findings, report.lines) == ([], 20_001)


def config(database: Database, folder: Path, role: str = "mooring_sealer") -> SealingConfig:
    return SealingConfig(
        database_url=database.url(role),
        audit_keys_file=ring_file(folder),
        seal_interval_s=0.05,
    )


def ring_file(folder: Path, *key_ids: int) -> Path:
    file = folder / "audit-keys.json"
    secret = b64encode(RING.keys[1]).decode()
    keys = [{"id": key_id, "secret": secret} for key_id in key_ids or (1,)]
    file.write_text(json.dumps({"active": keys[-1]["id"], "keys": keys}))
    return file


def environment_of(
    database: Database, folder: Path, role: str = "mooring_sealer"
) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": database.url(role),
        "AUDIT_KEYS_FILE": str(ring_file(folder)),
    }


async def test_keys_are_rotated_and_a_missing_one_is_named(
    sealed: Chain, database: Database, tmp_path: Path
) -> None:
    other = KeyRing(2, {**RING.keys, 2: bytes(32)})
    write(database)
    rotated = Sealer(SealStore(sealed.engine), other, "b")
    assert await rotated.seal() == 1
    await rotated.stop()
    async with reader(sealed.engine) as chain:
        assert (await verify(chain, other.keys, patience_s=PATIENT_S)).findings == []
        lost = await verify(chain, {2: bytes(32)}, patience_s=PATIENT_S)
    assert [(finding.fault, finding.seal_id) for finding in lost.findings] == [
        (Fault.KEY_MISSING, seal_id) for seal_id in (1, 2, 3)
    ]
    with pytest.raises(SystemExit, match="key 2"):
        async with running(config(database, tmp_path)):
            pytest.fail("the sealer continued with another key")


async def test_lines_that_are_not_sealed_in_time_are_found(chain: Chain) -> None:
    write(chain.database)
    assert await chain.findings() == []
    assert await chain.faults(patience_s=0) == {Fault.NOT_SEALED}


def verify_command(environment: dict[str, str], *options: str) -> tuple[int, list[str]]:
    ended = subprocess.run(
        [sys.executable, "-m", "registry_service.audit.sealing", "verify", *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return ended.returncode, (ended.stdout + ended.stderr).splitlines()


async def test_the_command_that_verifies(sealed: Chain, tmp_path: Path) -> None:
    # The operator's role is enough: verifying needs the key, and no right to write.
    environment = environment_of(sealed.database, tmp_path, "mooring_operator")
    status, said = verify_command(environment)
    assert (status, said[0]) == (0, "3 seals, 9 lines, 0 not sealed yet")
    head = said[1].removeprefix("head ")
    assert verify_command(environment, "--expect", head) == (0, said)
    sealed.database.execute("UPDATE audit_log SET actor = 'bob' WHERE id = 5")
    status, said = verify_command(environment, "--expect", head)
    assert status == 1
    assert said[0] == "seal 2: lines were changed (line 4, 5, 6)"
    sealed.database.execute("DELETE FROM audit_seals WHERE id = 3")
    status, said = verify_command(environment, "--expect", head)
    assert status == 1
    assert "seal 3: the expected seal is missing or different" in said
    assert verify_command(environment, "--expect", "nonsense")[0] == 2
    gone = environment | {"DATABASE_URL": "postgresql://u:sesame@127.0.0.1:1/x"}
    status, said = verify_command(gone)
    assert status == 1
    assert said[0].startswith("the database: ")
    assert "sesame" not in said[0]
