"""An input is to be done with soon: in processor time, which others on the machine do not take."""

import logging
import time
from collections.abc import Callable

import structlog

from tests.fuzz import SLOW_S


def bounded(attempt: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Raises for an input that takes too long, too."""

    def attempt_in_time(data: bytes) -> None:
        begun = time.process_time()
        attempt(data)
        took = time.process_time() - begun
        assert took < SLOW_S, f"took {took:.1f} s"

    return attempt_in_time


def quiet() -> None:
    """This process logs no more, but for what is critical."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
