"""Waits until brokers hold devices, for gateways that will answer those devices."""

import asyncio
import contextlib
from collections.abc import Sequence

from chassis.coalescer import Coalescer
from chassis.listening import Listener
from chassis.process import background
from registry_service.admission.reconciler.held_store import Awaited, HeldStore, Look

# How often the state is read if no change is announced, because an announcement may be lost.
LOOK_S = 0.5
MAX_BATCH = 5_000
MAX_WAITING = 50_000


class Held:
    """One statement reads the state for all waiting calls, once for each announcement."""

    def __init__(self, store: HeldStore, listener: Listener) -> None:
        """`listener` listens on `HELD_CHANNEL`. Use the object in one event loop only."""
        self._store = store
        self._listener = listener
        self._looking = Coalescer[Sequence[Awaited], Sequence[Look]](
            self._look,
            name="held",
            max_batch=MAX_BATCH,
            max_waiting=MAX_WAITING,
            spacing_s=0.002,
        )
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_closed = False

    async def keep_hearing(self) -> None:
        """Runs until it is cancelled."""
        async with background(self._listener.run()):
            while True:
                await self._listener.occasion(within_s=LOOK_S)
                self._wake_waiting()

    async def look(
        self, awaited: Sequence[Awaited], *, within_s: float, deadline: float
    ) -> Sequence[Look]:
        """The state of each device. Returns when a broker holds one of the devices, or waiting for
        one is useless, or after `within_s`. `deadline` is a time of the running loop's clock.
        Raises `Unavailable`, `Overloaded`.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + within_s
        while True:
            # Taken before reading, so that no announcement is missed meanwhile.
            news = self._news
            looks = await self._looking.submit(awaited, deadline=deadline, weight=len(awaited))
            is_decided = any(one.is_held or not one.is_driven for one in looks)
            if is_decided or self._is_closed or loop.time() >= ends_at:
                return looks
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(ends_at):
                    # It is shielded because other calls wait for the same future.
                    await asyncio.shield(news)

    async def close(self) -> None:
        """Ends all waiting; later calls do not wait."""
        self._is_closed = True
        self._wake_waiting()
        await self._looking.close()

    def _wake_waiting(self) -> None:
        news, self._news = self._news, asyncio.get_running_loop().create_future()
        news.set_result(None)

    async def _look(
        self,
        calls: list[Sequence[Awaited]],
        deadline: float,  # noqa: ARG002 - the store's own time is shorter
    ) -> list[Sequence[Look]]:
        looks = iter(await self._store.look([one for call in calls for one in call]))
        return [[next(looks) for _ in call] for call in calls]
