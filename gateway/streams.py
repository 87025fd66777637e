"""The open streams of each token in this gateway, which are limited."""

from collections import Counter as Counts
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from gateway.limits import RateLimited

MAX_STREAMS_OF_A_TOKEN = 20
# How long clients wait before they connect again.
RETRY_S = 2

STREAMS = Gauge("mooring_change_streams", "Open streams of changes in this process")


class Streams:
    """The open streams of each token in this process."""

    def __init__(self) -> None:
        self._open: Counts[str] = Counts()

    def require_room(self, token: str) -> None:
        """Raises `RateLimited` if the token with this id has too many streams."""
        if self._open[token] >= MAX_STREAMS_OF_A_TOKEN:
            raise RateLimited("this token has too many streams", retry_after_s=RETRY_S)

    @contextmanager
    def opened(self, token: str) -> Iterator[None]:
        """Counts a stream of the token until the end of the block. Raises `RateLimited`."""
        self.require_room(token)
        self._open[token] += 1
        STREAMS.inc()
        try:
            yield
        finally:
            STREAMS.dec()
            self._open[token] -= 1
            if not self._open[token]:
                del self._open[token]
