"""Checks the newest seals again and again, and keeps the result for people. `verify` checks all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry_service.audit.sealing.chain import (
    GENESIS,
    NAMED,
    Comparison,
    Fault,
    Finding,
    Seal,
    fault_of,
)
from registry_service.audit.sealing.store import Reader
from registry_service.audit.sealing.verification import compared

# The newest seals that cover up to so many lines, but always the last one.
SEALS = 1_000
LINES = 20_000
# The most faults that are kept.
FINDINGS = 20


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check. The seals from `first_seal_id` to the last one were checked, and those
    that had a fault before.
    """

    first_seal_id: int = 0
    # The last seal, which the next check must find again; 0 and empty before the first seal.
    last_seal_id: int = 0
    last_mac: bytes = b""
    lines: int = 0
    findings: Sequence[Finding] = ()


async def check(
    reader: Reader, keys: Mapping[int, bytes], before: Check | None, archived: int = 0
) -> Check:
    """Checks the newest seals and their lines, and the seals with the findings of `before`: a fault
    stays until it is mended. Lines of the seals up to `archived` may have been moved.
    """
    before = before or Check()
    newest, preceding = _window(await reader.newest_seals(SEALS + 1))
    previous = (preceding.id, preceding.mac) if preceding else (0, GENESIS)
    findings = await _examined(reader, newest, previous, keys, archived)
    findings += await _inserted(reader, newest, keys, before)
    first = newest[0].id if newest else 0
    for finding in before.findings:
        if finding.fault is not Fault.HEAD_REMOVED and 0 < finding.seal_id < first:
            findings += await _again(reader, finding, keys, archived)
    last_seal_id, last_mac = before.last_seal_id, before.last_mac
    expected = await reader.seals_after(last_seal_id - 1, 1) if last_seal_id else []
    if last_seal_id and [(seal.id, seal.mac) for seal in expected] != [(last_seal_id, last_mac)]:
        findings.append(Finding(Fault.HEAD_REMOVED, last_seal_id))
    elif newest:
        last_seal_id, last_mac = newest[-1].id, newest[-1].mac
    lines = sum(seal.lines for seal in newest)
    return Check(first, last_seal_id, last_mac, lines, _distinct(findings)[:FINDINGS])


async def _again(
    reader: Reader, finding: Finding, keys: Mapping[int, bytes], archived: int
) -> list[Finding]:
    """The faults that a seal with an earlier finding has now."""
    seal_id = finding.seal_id
    near = [seal for seal in await reader.seals_after(seal_id - 2, 2) if seal.id <= seal_id]
    if not near or near[-1].id != seal_id:
        return [Finding(Fault.SEAL_REMOVED, seal_id)]
    previous = (0, GENESIS) if near[0].id == 1 else (near[0].id - 1, None)
    found = await _examined(reader, near, previous, keys, archived)
    return [one for one in found if one.seal_id == seal_id]


def _window(newest: Sequence[Seal]) -> tuple[list[Seal], Seal | None]:
    """The seals to check, in the order of their ids, and the one before them. `newest` has the
    newest one first.
    """
    lines = taken = 0
    for seal in newest[:SEALS]:
        lines += seal.lines
        if taken and lines > LINES:
            break
        taken += 1
    return list(reversed(newest[:taken])), newest[taken] if taken < len(newest) else None


async def _examined(
    reader: Reader,
    seals: Sequence[Seal],
    previous: tuple[int, bytes | None],
    keys: Mapping[int, bytes],
    archived: int,
) -> list[Finding]:
    """The faults of consecutive seals and of their lines; `previous` is the seal before them."""
    findings = []
    sound = []
    previous_id, previous_mac = previous
    for seal in seals:
        fault = fault_of(seal, previous_id, previous_mac, keys)
        is_sound = fault in (None, Fault.SEAL_REMOVED)
        if fault is Fault.SEAL_REMOVED:
            findings.append(Finding(fault, min(seal.id, previous_id + 1)))
        elif fault is not None:
            findings.append(Finding(fault, seal.id))
        if is_sound and seal.id > archived:
            sound.append(seal)
        previous_id, previous_mac = seal.id, seal.mac if is_sound else None
    comparison = Comparison(sound)
    await compared(reader, comparison)
    return findings + comparison.findings()


async def _inserted(
    reader: Reader, newest: Sequence[Seal], keys: Mapping[int, bytes], before: Check
) -> list[Finding]:
    """Lines that appeared among the lines of the newest seals after these were made, or among those
    of earlier ones, as `before` found.
    """
    sound = [seal for seal in newest if fault_of(seal, seal.id - 1, None, keys) is None]
    if not sound:
        return []
    first, _ = Comparison(sound).extent
    known = [
        line for one in before.findings if one.fault is Fault.LINES_INSERTED for line in one.lines
    ]
    late = await reader.inserted(min([first, *known]), sound[-1], NAMED)
    return [Finding(Fault.LINES_INSERTED, lines=late)] if late else []


def _distinct(findings: Sequence[Finding]) -> list[Finding]:
    found = {(finding.fault, finding.seal_id): finding for finding in findings}
    return list(found.values())
