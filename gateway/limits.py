"""Rate limits, by the secret of a request and by the client's address.

For registrations the secret is the provisioning key. For API tokens only failures count, by the
beginning of the token (`gateway.administration.attempts`).

A limit of 600/minute is an allowance of 600 that refills evenly, ten a second. Every process of the
gateway counts separately, so N processes admit N times as much. The limit stops clients that send
far too much, and is no quota. A shared count would cost a round trip to another server before every
registration.

The arithmetic is pyrate-limiter's GCRA: a pure function over one integer and the caller's clock. It
counts exactly, and returns the exact wait. The memory is in this module, because it must be bounded
even if attackers invent keys and addresses. `admit` takes 2 µs on CPython 3.11, or 3.5 µs with both
limits. Other libraries take as long and do less: `limits` (2.6 µs without the digest) stores every
key of the last period, and its thread reads all of them up to a hundred times a second;
`throttled-py` (3.6 µs) is bounded, but rounds, and admits one too few for one limit in four;
pyrate-limiter's own `Limiter` (7 µs) starts a thread.
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

# How many keys, and how many addresses, are stored; those without recent requests are dropped. A
# dropped key has its whole allowance again, so very many invented keys lock no client out. 65,536
# keys take 16 MB.
MAX_KNOWN = 65_536
# Refused clients get a random delay of up to one period of the limit, in which as many requests are
# admitted as the limit allows. This is the longest such delay.
MAX_SPREAD_S = 60

PERIODS_S = {"second": 1, "minute": 60, "hour": 3600}
LIMIT = re.compile(rf"([1-9][0-9]{{0,11}})/({'|'.join(PERIODS_S)})")
# The arithmetic counts whole microseconds between two requests, so there is a largest limit. No
# process reaches this rate.
MAX_PER_S = 100_000

# The messages to devices.
KEY_FAULT = "too many registrations with this provisioning key"
ADDRESS_FAULT = "too many requests from this address"


class RateLimited(Overloaded):
    """A secret or an address is used too often; the request was not read."""

    reason = "RATE_LIMITED"


@dataclass(frozen=True)
class Limit:
    """`count` requests in `period_s` seconds; they may all come at once."""

    count: int
    period_s: int

    def __str__(self) -> str:
        """As it is written in a setting."""
        periods = {seconds: name for name, seconds in PERIODS_S.items()}
        return f"{self.count}/{periods.get(self.period_s, f'{self.period_s} s')}"


def limit_of(text: Any) -> Any:
    """The `Limit` of a setting; None if it is empty. Raises `ValueError`."""
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
    """The remaining allowances of keys and addresses, in this process."""

    def __init__(
        self,
        per_key: Limit | None,
        per_address: Limit | None,
        now_ms: Callable[[], int] = _now_ms,
        *,
        key_fault: str = KEY_FAULT,
        address_fault: str = ADDRESS_FAULT,
    ) -> None:
        """A limit that is None does not apply. `…_fault` is the message of a refusal."""
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
        """The object for these limits; None if there is no limit."""
        if not per_key and not per_address:
            return None
        return cls(per_key, per_address, key_fault=key_fault, address_fault=address_fault)

    def admit(self, client: tuple[str, int] | None, key: str = "") -> None:
        """Takes one request from the allowance of the ASGI scope's `client` and of `key`.

        `key` is the part of the secret that counts, if there is one. Raises `RateLimited`; a
        request that is refused for its address does not count for the key.
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
    """One limit, and the remaining allowances of the keys or addresses with the latest requests."""

    def __init__(self, limit: Limit) -> None:
        self._rates = [Rate(limit.count, limit.period_s * 1000)]
        self._spread_s = min(limit.period_s, MAX_SPREAD_S)
        self._gcra = GCRA()
        self._unused = self._gcra.initial(self._rates)
        # The amount that one request adds to a state.
        self._one, _ = self._gcra.step(self._rates, self._unused, 0, 1)
        # The states by key or address; the state of the latest request is at the end.
        self._states: OrderedDict[bytes | str, tuple[float, ...]] = OrderedDict()

    def take(self, who: bytes | str, now_ms: int) -> float:
        """0 if the request is admitted. Otherwise, the seconds after which to try again: the exact
        wait and a random part.
        """
        states = self._states
        state = states.get(who)
        if state is None:
            if len(states) >= MAX_KNOWN:
                states.popitem(last=False)
            state = self._unused
        else:
            states.move_to_end(who)
        states[who], decision = self._gcra.step(self._rates, state, now_ms, 1)
        if decision.retry_after_ms is None:  # the request is admitted
            return 0.0
        return decision.retry_after_ms / 1000 + random.uniform(0, self._spread_s)  # noqa: S311

    def give_back(self, who: bytes | str) -> None:
        """Undoes a `take`. The result is never more than a whole allowance."""
        state = self._states.get(who)
        if state is not None:
            self._states[who] = tuple(
                then - one for then, one in zip(state, self._one, strict=True)
            )


def _digest(key: str) -> bytes:
    """The hash under which a secret is stored, so that memory holds no secrets."""
    return sha256(key.encode()).digest()
