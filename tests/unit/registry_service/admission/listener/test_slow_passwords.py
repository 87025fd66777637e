"""Slow hashes are checked in turns: a client that guesses does not delay others for long."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from chassis.errors import Overloaded
from registry_service.admission.listener import slow_passwords
from registry_service.admission.listener.slow_passwords import (
    MAX_OF_BROKER,
    MAX_WRONG,
    SlowPasswords,
)
from registry_service.passwords import Password


class Hashes:
    """In place of hashes: each is computed when the test allows it, one after the other."""

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.may_end = threading.Semaphore(0)

    def is_password(self, kept: Password, shown: str) -> bool:
        self.may_end.acquire(timeout=10)
        self.computed.append(kept.hash)
        if shown == "broken":
            raise ValueError("as a library may")
        return shown == "right"


@pytest.fixture
async def hashes(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hashes]:
    hashes = Hashes()
    monkeypatch.setattr(slow_passwords, "is_password", hashes.is_password)
    monkeypatch.setattr(slow_passwords, "AT_ONCE", 1)
    yield hashes
    for _ in range(1000):
        hashes.may_end.release()


def kept(name: str) -> Password:
    return Password("bcrypt", name)


async def begun(
    slow: SlowPasswords, broker_id: int, name: str, shown: str
) -> "asyncio.Task[bool | None]":
    task = asyncio.create_task(slow.check(broker_id, name, kept(name), shown))
    await asyncio.sleep(0)
    return task


async def test_brokers_and_usernames_take_turns(hashes: Hashes) -> None:
    slow = SlowPasswords()
    tasks = [
        await begun(slow, broker_id, name, f"{n}")
        for broker_id, name, n in (
            *((1, f"a{number}", n) for number in range(3) for n in range(2)),
            (1, "b", 0),
            (2, "c", 0),
        )
    ]
    for _ in tasks:
        hashes.may_end.release()
    assert await asyncio.gather(*tasks) == [False] * len(tasks)
    assert hashes.computed == ["a0", "a0", "c", "a1", "a2", "b", "a1", "a2"]
    slow.close()


async def test_no_username_has_more_than_its_share(hashes: Hashes) -> None:
    slow = SlowPasswords()
    tasks = [await begun(slow, 1, "guessed", f"{n}") for n in range(40)]
    other = await begun(slow, 1, "other", "right")
    for _ in range(40):
        hashes.may_end.release()
    results = await asyncio.gather(*tasks)
    assert results == [False, False] + [None] * 38
    assert await other is True
    # Results are cached: neither a right nor a wrong password is computed again.
    assert slow.known(kept("other"), "right") is True
    assert slow.known(kept("guessed"), "0") is False
    assert slow.known(kept("guessed"), "39") is None
    slow.close()


async def test_guesses_of_one_username_are_limited_and_known_passwords_are_not(
    hashes: Hashes,
) -> None:
    slow = SlowPasswords()
    for _ in range(2 * MAX_WRONG):
        hashes.may_end.release()
    for n in range(MAX_WRONG):
        assert await slow.check(1, "guessed", kept("guessed"), f"{n}") is False
    assert await slow.check(1, "guessed", kept("guessed"), "another") is None
    # At another broker it counts separately.
    assert await slow.check(2, "guessed", kept("guessed"), "right") is True
    assert slow.known(kept("guessed"), "right") is True
    slow.close()


async def test_no_broker_takes_the_room_of_another(hashes: Hashes) -> None:
    slow = SlowPasswords()
    tasks = [await begun(slow, 1, f"a{n}", "wrong") for n in range(MAX_OF_BROKER)]
    with pytest.raises(Overloaded):
        await slow.check(1, "one-more", kept("one-more"), "wrong")
    other = await begun(slow, 2, "b", "right")
    hashes.may_end.release()
    hashes.may_end.release()
    assert await other is True
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(10):
        hashes.may_end.release()
    # Clients that have left have no turn.
    assert await slow.check(1, "a0", kept("a0"), "right") is True
    slow.close()


async def test_a_hash_that_the_library_refuses_admits_no_client(hashes: Hashes) -> None:
    slow = SlowPasswords()
    hashes.may_end.release()
    assert await slow.check(1, "old", kept("old"), "broken") is False
    slow.close()
