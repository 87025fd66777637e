"""Seals new lines of the audit log every few seconds, in one process at a time."""

from typing import Any

import structlog

from chassis.errors import Unavailable
from chassis.leases import LeaseLost
from registry_service.audit.sealing.chain import Seal, fault_of, next_seal
from registry_service.audit.sealing.store import SealStore
from registry_service.credentials import KeyRing

log = structlog.get_logger(__name__)

BATCH = 2_000
# This is longer than any transaction of Mooring: clients end one after 8 s, the server ends
# statements after 5 s and idle transactions after 3 s.
LOOKBACK_S = 300.0


class Sealer:
    """Seals while this process holds the lease; other processes wait for it."""

    def __init__(
        self, store: SealStore, ring: KeyRing, holder: str, *, lookback_s: float = LOOKBACK_S
    ) -> None:
        """`holder` names this process in the lease. Seals are made with the active key."""
        self._store = store
        self._ring = ring
        self._holder = holder
        self._lookback_s = lookback_s
        self._term: int | None = None
        self._head: Seal | None = None

    @property
    def is_sealing(self) -> bool:
        """Whether this process holds the lease, as far as it knows."""
        return self._term is not None

    async def seal(self) -> int:
        """Seals all new lines in batches; returns their number, 0 without the lease."""
        if self._term is None:
            self._term = await self._store.lease.take(self._holder)
            if self._term is None:
                return 0
            log.info("seals the audit log from now on", term=self._term)
        sealed, is_complete = 0, False
        try:
            while not is_complete:
                lines, is_complete = await self._seal_batch(self._term)
                sealed += lines
        except LeaseLost:
            log.info("another process seals the audit log", term=self._term)
            self._term = self._head = None
        return sealed

    async def stop(self) -> None:
        """Gives up the lease, so that another process can seal at once."""
        if self._term is None:
            return
        try:
            await self._store.lease.give_up(self._term)
        except Unavailable:
            log.warning("the lease could not be given up")

    async def _seal_batch(self, term: int) -> tuple[int, bool]:
        """Seals a batch. Returns the number of its lines, and whether no more lines are left."""
        async with self._store.turn(term) as turn:
            last = await turn.last_seal()
            if self._head is not None and _place(last) != _place(self._head):
                log.error(
                    "the chain of seals does not end with the last known seal",
                    was=self._head.id,
                    **_head_field(last),
                )
            self._head = last
            if last and (fault := fault_of(last, last.id - 1, None, self._ring.keys)):
                # A seal that is not authentic does not say which lines come next.
                log.error(
                    "this process did not make the last seal: verify the chain",
                    fault=fault.value,
                    **_head_field(last),
                )
                return 0, True
            lines = await turn.unsealed(last, BATCH)
            if not lines:
                return 0, True
            is_complete = len(lines) < BATCH
            closed = await turn.closing(last, None if is_complete else max(lines), self._lookback_s)
            seal = next_seal(
                last,
                lines,
                closed=closed,
                # Times of seals never decrease, even if the clock was set back.
                at=str(max(int(turn.now), int(last.sealed_at) if last else 0)),
                key_id=self._ring.active_id,
                key=self._ring.keys[self._ring.active_id],
            )
            await turn.append(seal)
        self._head = seal
        # If logs are collected on another machine, the head of the chain is there too.
        log.info("sealed", lines=len(lines), **_head_field(seal))
        return len(lines), is_complete


def _place(seal: Seal | None) -> tuple[int, bytes]:
    return (seal.id, seal.mac) if seal else (0, b"")


def _head_field(seal: Seal | None) -> dict[str, Any]:
    return {"head": f"{seal.id}:{seal.mac.hex()}"} if seal else {"head": None}
