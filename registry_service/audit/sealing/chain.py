"""Makes and checks seals, without a database.

A seal covers lines of the audit log. It has the exact ids of the lines, a digest of the lines, and
the MAC of the previous seal. Its own MAC, with a key that is not in the database, covers all of
that. So a change to sealed lines cannot be hidden without the key.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

# How many lines a finding names.
NAMED = 10
# The previous MAC of the first seal.
GENESIS = bytes(32)
RANGE = re.compile(r"\[(\d{1,19}),(\d{1,19})\)")

# The columns of a line as PostgreSQL prints them, None for NULL. As text, numbers and times lose no
# digits.
Line = Sequence[str | None]
# The number of columns of the oldest lines, which are sealed without the columns that were added
# later.
FIRST_COLUMNS = 12
# The ids from the first number up to, and without, the second.
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Seal:
    """A row of audit_seals. `ids` is in PostgreSQL's text form, times in whole microseconds."""

    id: int
    ids: str
    lines: int
    digest: bytes
    closed_id: int
    closed_at: str
    previous_mac: bytes
    key_id: int
    mac: bytes
    sealed_at: str


class Fault(Enum):
    """The kinds of faults that verification finds."""

    SEAL_REMOVED = "a seal was removed"
    SEAL_CHANGED = "a seal was changed"
    KEY_MISSING = "the key of a seal is not in the ring"
    LINES_REMOVED = "lines were removed"
    LINES_CHANGED = "lines were changed"
    LINES_INSERTED = "lines were inserted between lines that were sealed before"
    HEAD_REMOVED = "the expected seal is missing or different"
    NOT_SEALED = "lines have waited too long to be sealed"
    NOT_PROVED = "lines name a token without a valid ticket for it"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault; `seal_id` is 0 if it concerns no seal. `lines` are the first few ids."""

    fault: Fault
    seal_id: int = 0
    lines: Sequence[int] = ()


def encoded(values: Iterable[str | None]) -> bytes:
    """An unambiguous encoding: each value has its length before it, and None differs from every
    text.
    """
    parts = []
    for value in values:
        if value is None:
            parts.append(b"\0")
        else:
            data = value.encode()
            parts.append(b"\1" + len(data).to_bytes(8, "big") + data)
    return b"".join(parts)


class Digest:
    """SHA-256 over lines, which are added in the order of their ids."""

    def __init__(self) -> None:
        """Starts without lines."""
        self._hash = hashlib.sha256()

    def add(self, line: Line) -> None:
        """Adds a line. Lines with more than the first columns begin with a byte with which no value
        begins, so that the digest shows where each line ends.
        """
        if len(line) > FIRST_COLUMNS:
            self._hash.update(b"\2")
        self._hash.update(encoded(line))

    @property
    def value(self) -> bytes:
        """The digest of the lines that were added until now."""
        return self._hash.digest()


def digest_of(lines: Iterable[Line]) -> bytes:
    """The digest of all lines, which are in the order of their ids."""
    digest = Digest()
    for line in lines:
        digest.add(line)
    return digest.value


def mac_of(key: bytes, seal: Seal) -> bytes:
    """The MAC that a seal must have. `seal.mac` is not used."""
    fields = (
        "mooring audit seal 1",
        seal.previous_mac.hex(),
        str(seal.id),
        seal.ids,
        str(seal.lines),
        seal.digest.hex(),
        str(seal.closed_id),
        seal.closed_at,
        str(seal.key_id),
        seal.sealed_at,
    )
    return hmac.digest(key, encoded(fields), "sha256")


def next_seal(
    last: Seal | None,
    lines: Mapping[int, Line],
    *,
    closed: tuple[int, str],
    at: str,
    key_id: int,
    key: bytes,
) -> Seal:
    """The seal after `last` that covers `lines`, which are in the order of their ids. `closed` is
    an id and a time: no line with a smaller id or an earlier time can appear later. `at` is now.
    """
    unsigned = Seal(
        id=last.id + 1 if last else 1,
        ids=written(ranges_of(lines)),
        lines=len(lines),
        digest=digest_of(lines.values()),
        closed_id=closed[0],
        closed_at=closed[1],
        previous_mac=last.mac if last else GENESIS,
        key_id=key_id,
        mac=b"",
        sealed_at=at,
    )
    return replace(unsigned, mac=mac_of(key, unsigned))


def ranges_of(ids: Iterable[int]) -> list[Range]:
    """The ranges that contain exactly `ids`, which are in order."""
    ranges: list[Range] = []
    for line_id in ids:
        if ranges and ranges[-1][1] == line_id:
            ranges[-1] = (ranges[-1][0], line_id + 1)
        else:
            ranges.append((line_id, line_id + 1))
    return ranges


def written(ranges: Iterable[Range]) -> str:
    """A multirange of integers in PostgreSQL's text form."""
    return "{" + ",".join(f"[{lower},{upper})" for lower, upper in ranges) + "}"


def read(ids: str) -> list[Range]:
    """The ranges of a multirange that `written` wrote."""
    return [(int(lower), int(upper)) for lower, upper in RANGE.findall(ids)]


def fault_of(
    seal: Seal, previous_id: int, previous_mac: bytes | None, keys: Mapping[int, bytes]
) -> Fault | None:
    """The fault of a seal, without comparing its lines. `previous_id` is 0 for the first seal;
    `previous_mac` is None after a faulty seal.
    """
    key = keys.get(seal.key_id)
    if key is None:
        return Fault.KEY_MISSING
    if not hmac.compare_digest(mac_of(key, seal), seal.mac):
        return Fault.SEAL_CHANGED
    if seal.id != previous_id + 1 or previous_mac not in (None, seal.previous_mac):
        return Fault.SEAL_REMOVED
    return None


@dataclass(slots=True)
class _Covered:
    seal: Seal
    digest: Digest = field(default_factory=Digest)
    ids: list[int] = field(default_factory=list)


class Comparison:
    """Compares seals with valid MACs with the existing lines."""

    def __init__(self, seals: Iterable[Seal]) -> None:
        """The seals must not cover a line twice."""
        self._covered = [_Covered(seal) for seal in seals]
        self._ranges = sorted(
            (
                (lower, upper, covered)
                for covered in self._covered
                for lower, upper in read(covered.seal.ids)
            ),
            key=lambda found: found[:2],
        )
        self._at = 0

    @property
    def extent(self) -> Range:
        """The range of ids that contains all covered lines."""
        if not self._ranges:
            return (0, 0)
        return self._ranges[0][0], self._ranges[-1][1]

    def add(self, line_id: int, line: Line) -> None:
        """Adds an existing line, covered or not. Call it in the order of the lines' ids."""
        while self._at < len(self._ranges) and self._ranges[self._at][1] <= line_id:
            self._at += 1
        if self._at == len(self._ranges):
            return
        lower, _, covered = self._ranges[self._at]
        if lower <= line_id:
            covered.digest.add(line)
            covered.ids.append(line_id)

    def findings(self) -> list[Finding]:
        """The faults, after every line within `extent` was added."""
        found = []
        for covered in self._covered:
            seal = covered.seal
            if len(covered.ids) != seal.lines:
                found.append(Finding(Fault.LINES_REMOVED, seal.id, _missing(covered)))
            elif covered.digest.value != seal.digest:
                found.append(Finding(Fault.LINES_CHANGED, seal.id, covered.ids[:NAMED]))
        return found


def _missing(covered: _Covered) -> list[int]:
    there = set(covered.ids)
    missing: list[int] = []
    for lower, upper in read(covered.seal.ids):
        for line_id in range(lower, upper):
            if line_id not in there:
                missing.append(line_id)
                if len(missing) == NAMED:
                    return missing
    return missing
