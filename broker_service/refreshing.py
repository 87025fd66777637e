"""How a change of brokers or certificates takes effect in the process that made it."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

# Returns when all that was committed before takes effect in answers. Raises `Unavailable`.
Refresh: TypeAlias = Callable[[], Awaitable[None]]
