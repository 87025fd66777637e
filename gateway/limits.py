"""How often somebody may ask: by the secret they show, and by the address they come from.

Devices show provisioning keys. Of those who show API tokens only the failures count, by how the
token begins (`gateway.administration.attempts`).

A limit of 600/minute is an allowance of 600 that refills evenly, ten a second. Every process of the
gateway counts for itself, so N of them let in N times as much: this stops what runs away, and is
no quota. To share the count would cost a round trip to another server before every registration.

The arithmetic is pyrate-limiter's GCRA: a pure function over one integer and the caller's clock,
exact to the request, with the exact wait. The memory is ours, because it must be bounded while a
flood invents keys and addresses. `admit` takes 2 µs on CPython 3.11, with both limits 3.5 µs. The
others cost as much and do less: `limits` (2.6 µs without the digest) keeps every key of the last
period, and a thread of its own walks through them up to a hundred times a second; `throttled-py`
(3.6 µs) is bounded, but rounds, and lets in one too few for one limit in four; pyrate-limiter's own
`Limiter` (7 µs) starts a thread.
"""

import random
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic_ns
from typing import Any

from pyrate_limiter import GCRA, Rate

from chassis.addresses import host_of
from chassis.errors import Overloaded

# Of the keys, and of the addresses, that asked last. One that is forgotten begins with a whole
# allowance again, so a flood of inventions cannot shut anybody out. 65,536 keys take 16 MB.
MAX_KNOWN = 65_536
# The refused come back spread over a period of their limit: in that time as many as it names can
# be let in. Nobody waits longer than this for the others' sake.
MAX_SPREAD_S = 60

PERIODS_S = {"second": 1, "minute": 60, "hour": 3600}
LIMIT = re.compile(rf"([1-9][0-9]{{0,11}})/({'|'.join(PERIODS_S)})")
# The arithmetic counts whole microseconds between two requests, and no process gets that far.
MAX_PER_S = 100_000

# What is said to devices.
KEY_FAULT = "too many registrations with this provisioning key"
ADDRESS_FAULT = "too many requests from this address"


class RateLimited(Overloaded):
    """A secret, or an address, that is used too often; what was asked was not looked at."""

    reason = "RATE_LIMITED"


@dataclass(frozen=True)
class Limit:
    """So many in so many seconds, and so many at once."""

    count: int
    period_s: int


def limit_of(text: Any) -> Any:
    """The `Limit` that a setting names; None where it is empty. Raises `ValueError`."""
    if not isinstance(text, str):
        return text
    if not text.strip():
        return None
    found = LIMIT.fullmatch(text.strip())
    if found is None:
        raise ValueError("must be empty, or a number and a period, such as 600/minute or 10/second")
    limit = Limit(int(found[1]), PERIODS_S[found[2]])
    if limit.count > MAX_PER_S * limit.period_s:
        raise ValueError(
            f"is more than {MAX_PER_S}/second, which no process reaches: leave it empty"
        )
    return limit


def _now_ms() -> int:
    return monotonic_ns() // 1_000_000


class Limits:
    """What is left of everybody's allowance, in this process."""

    def __init__(
        self,
        per_key: Limit | None,
        per_address: Limit | None,
        now_ms: Callable[[], int] = _now_ms,
        *,
        key_fault: str = KEY_FAULT,
        address_fault: str = ADDRESS_FAULT,
    ) -> None:
        """None stands for no limit; a refusal says which `…_fault` it was."""
        self._keys = _Allowances(per_key) if per_key else None
        self._addresses = _Allowances(per_address) if per_address else None
        self._now_ms = now_ms
        self._key_fault = key_fault
        self._address_fault = address_fault

    @classmethod
    def of(
        cls,
        per_key: Limit | None,
        per_address: Limit | None,
        *,
        key_fault: str = KEY_FAULT,
        address_fault: str = ADDRESS_FAULT,
    ) -> "Limits | None":
        """None where there is nothing to limit."""
        if not per_key and not per_address:
            return None
        return cls(per_key, per_address, key_fault=key_fault, address_fault=address_fault)

    def admit(self, client: tuple[str, int] | None, key: str = "") -> None:
        """Takes one request from the allowance of the ASGI scope's `client` and of `key`.

        `key` is what is counted of the secret, if one is shown. Raises `RateLimited`; a request
        that is refused for its address takes nothing from the key.
        """
        now_ms = self._now_ms()
        if self._addresses is not None and client is not None:
            wait_s = self._addresses.take(host_of(client[0]), now_ms)
            if wait_s:
                raise RateLimited(self._address_fault, retry_after_s=wait_s)
        if self._keys is not None and key:
            wait_s = self._keys.take(_digest(key), now_ms)
            if wait_s:
                raise RateLimited(self._key_fault, retry_after_s=wait_s)

    def give_back(self, client: tuple[str, int] | None, key: str = "") -> None:
        """Undoes an `admit` that should not have counted."""
        if self._addresses is not None and client is not None:
            self._addresses.give_back(host_of(client[0]))
        if self._keys is not None and key:
            self._keys.give_back(_digest(key))


class _Allowances:
    """One limit, and how much of it each of those that asked last has left."""

    def __init__(self, limit: Limit) -> None:
        self._rates = [Rate(limit.count, limit.period_s * 1000)]
        self._spread_s = min(limit.period_s, MAX_SPREAD_S)
        self._gcra = GCRA()
        self._unused = self._gcra.initial(self._rates)
        # What one request adds to a state.
        self._one, _ = self._gcra.step(self._rates, self._unused, 0, 1)
        # The one that asked last is at the end.
        self._states: OrderedDict[bytes | str, tuple[float, ...]] = OrderedDict()

    def take(self, who: bytes | str, now_ms: int) -> float:
        """0, or the seconds after which to try again: the exact wait and a random part."""
        states = self._states
        state = states.get(who)
        if state is None:
            if len(states) >= MAX_KNOWN:
                states.popitem(last=False)
            state = self._unused
        else:
            states.move_to_end(who)
        states[who], decision = self._gcra.step(self._rates, state, now_ms, 1)
        if decision.retry_after_ms is None:  # it is admitted
            return 0.0
        return decision.retry_after_ms / 1000 + random.uniform(0, self._spread_s)  # noqa: S311

    def give_back(self, who: bytes | str) -> None:
        """Undoes a `take`. Nobody comes to more than a whole allowance: the past counts as now."""
        state = self._states.get(who)
        if state is not None:
            self._states[who] = tuple(
                then - one for then, one in zip(state, self._one, strict=True)
            )


def _digest(key: str) -> bytes:
    """Secrets do not lie about in memory."""
    return sha256(key.encode()).digest()
