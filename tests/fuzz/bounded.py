"""Bounds the time of an input, as processor time: other processes do not count."""

import logging
import time
from collections.abc import Callable

import structlog

from tests.fuzz import SLOW_S


def bounded(attempt: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Wraps `attempt` so that it also raises for an input that takes too long."""

    def attempt_in_time(data: bytes) -> None:
        begun = time.process_time()
        attempt(data)
        took = time.process_time() - begun
        assert took < SLOW_S, f"took {took:.1f} s"

    return attempt_in_time


def quiet() -> None:
    """Keeps this process from logging anything that is not critical."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
