"""Whatever a broker sends or a file holds is a verdict or a refusal, and never a fault of ours."""

import asyncio
import base64
import random
import time
from collections.abc import AsyncIterator, Callable

import pytest

from chassis.errors import InvalidInput
from registry_service.access.passwords import is_password
from registry_service.access.subjects import Password
from registry_service.access.topics import covers, is_filter, is_topic, matches
from registry_service.devices.password_hashes import cheapest, read_password_hash
from tests.attacks.test_imported_hashes import REFUSED, TAKEN
from tests.brokers import Asking, asking
from tests.stack import Stack
from tests.unit.test_dialects import SOUND

pytestmark = pytest.mark.heavy

FUZZED_S = 20.0
# What means something to a parser, or to a broker, somewhere.
PIECES = [
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"%00", b"%", b"+", b"#", b"*", b"."),
    *(b"/", b"//", b"$", b"${username}", b"$share/g/", b'"', b"\\u0000", b"\\ud800", b"null"),
    *(b"[", b"{", b"}", b"1e999", b"-1", b"9" * 400, b"&", b"=", b"a" * 70_000, b"\r\n", b"true"),
]


def changed(some: bytes, chance: random.Random) -> bytes:
    """Some parts of it exchanged, taken away, repeated or put elsewhere."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randint(0, len(some))
        end = min(len(some), start + chance.choice((0, 1, 2, 8, 40)))
        put = chance.choice(
            (chance.choice(PIECES), chance.randbytes(3), some[start:end] * 2, some[end : end + 9])
        )
        some = some[:start] + put + some[end:]
    return some


@pytest.fixture
async def brokers(stack: Stack) -> AsyncIterator[Asking]:
    async with asking(stack) as running:
        yield running


async def test_no_body_of_any_dialect_is_a_fault(brokers: Asking) -> None:
    chance = random.Random(time.time_ns())  # noqa: S311 - what is tried is no secret
    until = time.monotonic() + FUZZED_S

    async def ask() -> None:
        dialect, operation, sound = chance.choice(SOUND)
        path = f"/{brokers.secret}/{dialect}/{operation}"
        body = changed(sound.body or sound.query, chance)
        headers = {
            name.decode(): value.decode("latin-1")
            for name, value in sound.headers.items()
            if chance.random() < 0.95
        }
        answer = await brokers.http.post(path, content=body, headers=headers)
        assert answer.status_code in (200, 403), (dialect, operation, body[:2000])

    while time.monotonic() < until:
        await asyncio.gather(*(ask() for _ in range(20)))


def fuzzed(attempt: Callable[[random.Random], None]) -> None:
    chance = random.Random(time.time_ns())  # noqa: S311 - what is tried is no secret
    until = time.monotonic() + FUZZED_S
    while time.monotonic() < until:
        attempt(chance)


def test_no_hash_that_is_taken_is_a_fault() -> None:
    texts = [text.encode() for text in (TAKEN | REFUSED).values()]
    texts += [base64.b64encode(bytes(size)) for size in (20, 36, 68)]

    def attempt(chance: random.Random) -> None:
        text = changed(chance.choice(texts), chance).decode("utf-8", "replace")
        try:
            found = read_password_hash(text, None, None)
        except InvalidInput:
            return
        kept = Password(found.algorithm, cheapest(found), found.salt)
        assert is_password(kept, chance.choice(("", "secret", "\0", "ä" * 90))) in (True, False)

    fuzzed(attempt)


def test_no_topic_is_a_fault_and_no_filter_hears_more_than_it_is_granted() -> None:
    levels = ["", "a", "b", "+", "#", "$SYS", "a+", "*", ".", "\0", "%c", "ä", "\ud800"]

    def text(chance: random.Random) -> str:
        return "/".join(chance.choices(levels, k=chance.randint(1, 4)))

    def attempt(chance: random.Random) -> None:
        grant, wanted, topic = text(chance), text(chance), text(chance)
        if covers(grant, wanted):
            assert is_filter(grant)
            assert is_filter(wanted)
            assert not matches(wanted, topic) or matches(grant, topic)
        if matches(wanted, topic):
            assert is_filter(wanted)
            assert is_topic(topic)

    fuzzed(attempt)
