"""Checks the chain of seals, and every line against it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from chassis.tickets import PublicKeys
from registry_service.audit.sealing.chain import (
    GENESIS,
    NAMED,
    Comparison,
    Fault,
    Finding,
    Seal,
    fault_of,
)
from registry_service.audit.sealing.proof import Written, is_proved
from registry_service.audit.sealing.store import Reader

SEALS_AT_ONCE = 200
LINES_AT_ONCE = 5_000
# Lines are sealed within seconds. If a line has waited this long, no sealer runs.
PATIENCE_S = 600.0


@dataclass(slots=True)
class Report:
    """The result of a verification."""

    findings: list[Finding] = field(default_factory=list)
    head: Seal | None = None
    seals: int = 0
    lines: int = 0
    # Lines that are not sealed yet.
    waiting: int = 0
    # The number of lines that name a person without a valid ticket; None if not checked.
    unproved: int | None = None


async def verify(
    reader: Reader,
    keys: Mapping[int, bytes],
    *,
    expected: tuple[int, bytes] | None = None,
    archived: int = 0,
    patience_s: float = PATIENCE_S,
    ticket_keys: PublicKeys | None = None,
) -> Report:
    """Checks all seals and lines, in parts.

    `expected` is the id and the MAC of a seal that must exist. Lines of the seals up to `archived`
    are not checked, because they may have been moved. With `ticket_keys`, each line that names a
    person must have a valid ticket.
    """
    report = Report()
    previous_mac: bytes | None = GENESIS
    last_sound: Seal | None = None
    while seals := await reader.seals_after(report.head.id if report.head else 0, SEALS_AT_ONCE):
        sound = []
        for seal in seals:
            previous_id = report.head.id if report.head else 0
            fault = fault_of(seal, previous_id, previous_mac, keys)
            if fault is None or fault is Fault.SEAL_REMOVED:
                sound.append(seal)
                last_sound = seal
                previous_mac = seal.mac
            else:
                previous_mac = None
            if fault is Fault.SEAL_REMOVED:
                report.findings.append(Finding(fault, min(seal.id, previous_id + 1)))
            elif fault is not None:
                report.findings.append(Finding(fault, seal.id))
            if expected and expected == (seal.id, seal.mac):
                expected = None
            report.head = seal
        report.seals += len(seals)
        await _compare(reader, [seal for seal in sound if seal.id > archived], report)
    report.waiting, findings = await reader.unsealed(last_sound, patience_s, NAMED)
    report.findings += findings
    if expected:
        report.findings.append(Finding(Fault.HEAD_REMOVED, expected[0]))
    if ticket_keys is not None:
        await _check_proofs(reader, ticket_keys, report)
    return report


async def _check_proofs(reader: Reader, keys: PublicKeys, report: Report) -> None:
    unproved: list[int] = []
    after_id = 0
    while lines := await reader.proofs(after_id, LINES_AT_ONCE):
        unproved += [line.id for line in lines if not is_proved(Written(**line._asdict()), keys)]
        after_id = lines[-1].id
    report.unproved = len(unproved)
    for first in range(0, len(unproved), NAMED):
        named = unproved[first : first + NAMED]
        report.findings.append(Finding(Fault.NOT_PROVED, lines=named))


async def _compare(reader: Reader, seals: list[Seal], report: Report) -> None:
    comparison = Comparison(seals)
    await compared(reader, comparison)
    report.lines += sum(seal.lines for seal in seals)
    report.findings += comparison.findings()


async def compared(reader: Reader, comparison: Comparison) -> None:
    """Adds the lines that the seals of `comparison` cover."""
    first, end = comparison.extent
    while lines := await reader.lines(first, end, LINES_AT_ONCE):
        for line_id, line in lines:
            comparison.add(line_id, line)
        first = lines[-1][0] + 1
