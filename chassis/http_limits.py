"""Limits of one client of an HTTP server: bytes, time and connections."""

import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

import structlog

from chassis.addresses import host_of

log = structlog.get_logger(__name__)

Network = IPv4Network | IPv6Network

# The number of descriptors that are reserved for databases, other services and files.
RESERVED_FILES = 256
# Idle connections are closed if more than this part of the connections is in use.
CROWDED = 0.9
# The shortest time between two searches for idle connections, and how long these must be idle.
SEARCH_S, IDLE_WHEN_CROWDED_S = 1.0, 5.0
# The shortest time between two log lines about refused connections.
LOG_S = 10.0


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The limits, in bytes and seconds and as numbers of connections."""

    # The request line and all header fields, with their line ends.
    head_bytes: int = 32 * 1024
    # The framing of a chunked body: extensions and trailers, in addition to eight bytes for each
    # byte of data.
    framing_bytes: int = 32 * 1024
    max_connections: int = 10_000
    max_connections_per_host: int = 4_000
    # The time from the first byte of a head to its last.
    head_s: float = 10.0
    # A body must be complete after `body_s`, plus a second for every `body_bytes_per_s` bytes.
    body_s: float = 30.0
    body_bytes_per_s: int = 4 * 1024
    # How long a connection without a request, or a body without progress, is kept.
    idle_s: float = 75.0
    handshake_s: float = 10.0
    # How long a client may leave answers unread.
    unread_s: float = 60.0
    # After an answer that ends the connection, the rest of the request is read and dropped, until
    # the client has sent nothing for `quiet_s`; for `linger_s` and `linger_bytes` at most.
    quiet_s: float = 2.0
    linger_s: float = 20.0
    linger_bytes: int = 1024 * 1024 * 1024


class Connections:
    """The open connections, counted by host."""

    def __init__(
        self,
        limits: HttpLimits,
        proxies: Sequence[Network] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`proxies` connect for many clients, so only the limit on all connections is for them."""
        self._most = min(limits.max_connections, _most_files() - RESERVED_FILES)
        if self._most < limits.max_connections:
            log.warning("the limit of open files allows fewer connections", allowed=self._most)
        self._most_per_host = limits.max_connections_per_host
        self._proxies = proxies
        self._now = now
        self._hosts: dict[bytes | str, int] = {}
        self._count = 0
        # Whether almost all connections are in use.
        self.is_crowded = False
        self._searched_at = self._logged_at = float("-inf")

    def enter(self, address: str) -> bytes | str | None:
        """Counts a connection; returns the host for `leave`, or None if there is no room."""
        host = "" if self._proxies and self._is_proxy(address) else host_of(address)
        of_host = self._hosts.get(host, 0)
        if self._count >= self._most or (host and of_host >= self._most_per_host):
            self._log(address)
            return None
        self._hosts[host] = of_host + 1
        self._count += 1
        self.is_crowded = self._count >= self._most * CROWDED
        return host

    def leave(self, host: bytes | str) -> None:
        """Uncounts a connection of `host` that has ended."""
        self._count -= 1
        self.is_crowded = self._count >= self._most * CROWDED
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]

    def should_search(self) -> bool:
        """Whether to search for idle connections to close; true at most once in `SEARCH_S`."""
        now = self._now()
        if not self.is_crowded or now < self._searched_at + SEARCH_S:
            return False
        self._searched_at = now
        return True

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ip_address(str(host_of(address)) if "." in address else address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)

    def _log(self, address: str) -> None:
        now = self._now()
        if now >= self._logged_at + LOG_S:
            self._logged_at = now
            log.warning("too many connections: one is refused", address=address, open=self._count)


def _most_files() -> int:
    """The number of descriptors that this process may have, after raising the limit as far as
    allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            log.debug("the limit of open files stays as it is", limit=soft)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def close_idle(connections: Iterable[object], now: float) -> None:
    """Closes idle connections, to make room for others."""
    for connection in list(connections):
        close = getattr(connection, "close_if_idle_since", None)
        if close is not None:
            close(now - IDLE_WHEN_CROWDED_S)
