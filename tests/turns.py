"""A loop of a worker, run alone."""

from contextlib import nullcontext

from chassis import loops
from chassis.loops import Loop, Turn


async def repeated(turn: Turn) -> None:
    """Runs until it is cancelled."""
    await loops.run([Loop("tests", lambda: nullcontext(turn))])
