"""Limits failed attempts with device API keys, by device and by address.

Failures are counted in periods of `PERIOD_S`, for a device and an address together, for a device
from all addresses, and for an address over all devices. Beyond the first limit, no key from the
address is checked for the device, right or wrong, until the period ends. Beyond the other two
limits, only the address from which the device last authenticated is still checked for the device.
So guesses from other addresses do not lock a device out. A period has up to `MAX_COUNTED` counters;
further attempts are counted together, as if they came from one address.

Every replica counts its own failures at once. The replicas exchange their counts through the
database every second, in one statement; no request waits for that.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

import msgspec
import structlog
from msgspec import Struct

from chassis.database import Pool, fetched
from chassis.errors import Unavailable
from chassis.hosts import unwrapped
from chassis.refusals import Refusals
from registry_service.provisioning import statements

log = structlog.get_logger(__name__)

PERIOD_S = 600
PER_DEVICE_AND_ADDRESS = 20
PER_DEVICE = 200
PER_ADDRESS = 1_000
EXCHANGE_EVERY_S = 1.0
MAX_COUNTED = 200_000
IPV6_NETWORK_BITS = 64

Subject = tuple[str, str]  # a device and an address; an empty one stands for all
BEYOND: Subject = ("", "")


class Failures(Struct, frozen=True):
    """A row: the number of failures in the period."""

    device_uuid: str
    address: str
    failures: int


def is_to_wait(failures: Mapping[Subject, int], uuid: str, address: str, proved_from: str) -> bool:
    """Whether a request for this device from this address must wait. `proved_from` is the address
    from which the device last authenticated; empty if it is not known.
    """
    if failures.get((uuid, address), 0) >= PER_DEVICE_AND_ADDRESS:
        return True
    if address and address == proved_from:
        return False
    if failures.get((uuid, ""), 0) >= PER_DEVICE:
        return True
    return failures.get(("", address), 0) >= PER_ADDRESS or failures.get(BEYOND, 0) >= PER_ADDRESS


# Devices of a fleet have few addresses.
@lru_cache(maxsize=4_096)
def network_of(address: str) -> str:
    """The network for which failures are counted: the /64 of an IPv6 address, because a host can
    choose any address in it; else the address. An IPv4-mapped address counts as its IPv4 address
    (RFC 4291, sections 2.5.1 and 2.5.5.2).
    """
    try:
        found = unwrapped(ip_address(address.partition("%")[0]))
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    kept = int(found) >> IPV6_NETWORK_BITS << IPV6_NETWORK_BITS
    return f"{IPv6Address(kept)}/{IPV6_NETWORK_BITS}"


class Guesses:
    """The failures of the current period, as far as this process knows them."""

    def __init__(self, pool: Pool, audit: Refusals) -> None:
        """`pool` connects as mooring_registry; `audit` writes refusals to the audit log."""
        self._pool = pool
        self.audit = audit
        self._period = 0
        self._failures: dict[Subject, int] = {}
        self._unsent: Counter[Subject] = Counter()

    def wait_s(self, uuid: str, address: str, proved_from: str) -> float | None:
        """How long the device must wait before its API key is checked; None if it need not wait.
        `address` and `proved_from` are results of `network_of`.
        """
        if not self._failures:
            return None
        now = self._begin(time.time())
        if not is_to_wait(self._failures, uuid, address, proved_from):
            return None
        self._note_refused(uuid, address, "RATE_LIMITED")
        return max(1.0, (self._period + 1) * PERIOD_S - now)

    def is_watched(self, uuid: str) -> bool:
        """Whether there was an attempt with a wrong API key for the device in this period."""
        return bool(self._failures) and (uuid, "") in self._failures

    def note(self, uuid: str, address: str, reason: str) -> None:
        """Counts an attempt with a wrong API key for the device, refused with `reason`."""
        self._begin(time.time())
        self._note_refused(uuid, address, reason)
        subjects = [(uuid, ""), (uuid, address)]
        if address:
            subjects.append(("", address))
        for subject in subjects:
            is_known = subject in self._failures or len(self._failures) < MAX_COUNTED
            counted = subject if is_known else BEYOND
            self._failures[counted] = self._failures.get(counted, 0) + 1
            self._unsent[counted] += 1

    async def keep_exchanging(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(EXCHANGE_EVERY_S)
            try:
                await self.exchange()
            except Unavailable:
                log.warning("failed attempts of devices cannot be shared with other replicas now")

    async def exchange(self) -> None:
        """Sends this process's counts, and reads those of other replicas. Raises `Unavailable`."""
        self._begin(time.time())
        period, sent = self._period, self._unsent
        self._unsent = Counter()
        try:
            known = await _exchanged(self._pool, period * PERIOD_S, sent)
        except BaseException:
            if period == self._period:
                self._unsent.update(sent)
            raise
        if period != self._period:
            return
        for row in known:
            subject = (row.device_uuid, row.address)
            self._failures[subject] = max(
                row.failures + self._unsent[subject], self._failures.get(subject, 0)
            )

    def _note_refused(self, uuid: str, address: str, reason: str) -> None:
        self.audit.note_by("", address, "device.authenticate", uuid, reason, address=address)

    def _begin(self, now: float) -> float:
        """Drops the counts of the previous period, if it has ended."""
        period = int(now // PERIOD_S)
        if period != self._period:
            self._period = period
            self._failures.clear()
            self._unsent = Counter()
        return now


async def _exchanged(pool: Pool, began_at: int, sent: Mapping[Subject, int]) -> Iterable[Failures]:
    rows = [
        {"device_uuid": uuid, "address": address, "failures": count}
        for (uuid, address), count in sent.items()
    ]
    document = msgspec.json.encode(rows).decode()
    values = [document, began_at, began_at, PER_DEVICE_AND_ADDRESS, MAX_COUNTED]
    return [Failures(*row) for row in await fetched(pool, statements.EXCHANGE_FAILURES, values)]
