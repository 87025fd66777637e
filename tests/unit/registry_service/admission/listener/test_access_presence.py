"""Changes of presence that wait while the database is away."""

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

from chassis.errors import Unavailable
from registry_service.admission.listener import presence
from registry_service.admission.listener.presence import Presence
from registry_service.admission.listener.sessions import Sessions
from registry_service.admission.listener.store import AccessStore
from registry_service.admission.questions import Connect, Notice


class Away:
    """In place of a database; it waits for `says`."""

    def __init__(self) -> None:
        self.is_away = True
        self.written: list[tuple[int, dict[str, bool | None]]] = []

    def says(self) -> None:
        pass

    async def note_presence(
        self, broker_id: int, seen: Mapping[str, tuple[bool | None, int]]
    ) -> int:
        self.says()
        await asyncio.sleep(0)
        if self.is_away:
            raise Unavailable("the database cannot be reached")
        self.written.append((broker_id, {name: is_online for name, (is_online, _) in seen.items()}))
        return 0


async def test_the_newest_change_is_written_within_a_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence, "MAX_WAITING", 3)
    store = Away()
    waiting = Presence(cast("AccessStore", store), Sessions())
    # Changes of another broker take no room from this one.
    waiting.reported(2, [Notice(f"{n}", "", True) for n in range(100)], 0.0)
    waiting.reported(1, [Notice("a", "", True), Notice("b", "", True)], 0.0)

    def says() -> None:
        waiting.reported(1, [Notice("b", "", False)], 0.0)
        # Being admitted again does not change whether the client is online.
        waiting.connected(1, Connect("a", "password", ""), 0.0)
        waiting.reported(1, [Notice(name, "", True) for name in ("c", "d", "e")], 0.0)

    monkeypatch.setattr(store, "says", says)
    await waiting.write()
    monkeypatch.undo()
    store.is_away = False
    await waiting.write()
    assert (1, {"a": True, "b": False, "c": True}) in store.written
    assert sum(len(seen) for _, seen in store.written) == 6
