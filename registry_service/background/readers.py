"""Ends sessions of the role `mqtt_reader` that last too long.

Brokers hold its password. A transaction that stays open keeps the database from cleaning up, and a
timeout that the role is given can be set otherwise by its session; so the session is ended.
"""

import asyncio

import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import described, writing
from chassis.errors import Unavailable

log = structlog.get_logger(__name__)

INTERVAL_S = 2.0
END = text("SELECT end_long_readers(:transaction_s, :session_s)")

ENDED = Counter("mooring_reader_sessions_ended_total", "Sessions of mqtt_reader that were ended")


class Readers:
    """The sessions of mqtt_reader, as far as the registry may end them."""

    def __init__(self, engine: AsyncEngine, transaction_s: float, session_s: float) -> None:
        """`engine` connects as mooring_registry. Older transactions and sessions are ended."""
        self._engine = engine
        self._ages = {"transaction_s": transaction_s, "session_s": session_s}

    async def end(self) -> int:
        """How many were ended. Raises `Unavailable`."""
        async with writing(self._engine) as connection:
            ended = int(await connection.scalar(END, self._ages) or 0)
        if ended:
            ENDED.inc(ended)
            log.warning("sessions of mqtt_reader lasted too long", ended=ended, **self._ages)
        return ended


async def keep_ending(readers: Readers) -> None:
    """Runs until cancelled; in any number of processes."""
    while True:
        try:
            await readers.end()
        except Unavailable:
            log.warning("sessions of mqtt_reader cannot be ended now")
        except DBAPIError as error:
            # As where the owner of the database is no member of mqtt_reader.
            log.exception("sessions of mqtt_reader may not be ended", **described(error))
        await asyncio.sleep(INTERVAL_S)
